//! Who may come in, and what they may do there: tokens and their rights. Knows neither HTTP nor what rights protect.
//!
//! Tokens are long and random, so that one fast hash keeps them: neither memory nor the configuration needs to hold what
//! a thief could use.

use std::fmt;
use std::sync::Arc;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use toml::{Table, Value};

use crate::model::TenantId;
use crate::settings::suggest;

/// The shortest token that is taken, in bytes: shorter ones can be guessed.
const MIN_TOKEN_BYTES: usize = 16;
/// The longest, in bytes.
const MAX_TOKEN_BYTES: usize = 1024;
/// The most tokens that are kept: a look-up goes through all of them.
const MAX_TOKENS: usize = 10_000;

/// Something that a token may be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To query profiles.
    Read,
    /// To add profiles.
    Write,
    /// Everything, the server's own state included.
    Admin,
}

impl Right {
    /// The name in the configuration and in errors.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// The tenants that a right is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All there are and will be.
    All,
    /// These, sorted, each of them once; none where the token lacks the right.
    Some(Arc<[TenantId]>),
}

impl Reach {
    fn none() -> Self {
        Self::Some([].into())
    }

    fn of(mut tenants: Vec<TenantId>) -> Self {
        tenants.sort_unstable();
        tenants.dedup();
        Self::Some(tenants.into())
    }

    fn join(self, other: &Self) -> Self {
        match (self, other) {
            (Self::Some(ours), Self::Some(theirs)) => Self::of([&*ours, &**theirs].concat()),
            _ => Self::All,
        }
    }

    /// Whether it has this tenant.
    pub fn covers(&self, tenant: &TenantId) -> bool {
        match self {
            Self::All => true,
            Self::Some(tenants) => tenants.contains(tenant),
        }
    }

    fn is_none(&self) -> bool {
        matches!(self, Self::Some(tenants) if tenants.is_empty())
    }
}

/// A token without its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    name: Arc<str>,
    digest: [u8; SHA256_OUTPUT_LEN],
    read: Reach,
    write: Reach,
    admin: Reach,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Token {
    /// What logs and errors call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For whose data it has a right. Who may administer a tenant may also read and write.
    pub fn reach(&self, right: Right) -> Reach {
        match right {
            Right::Read => self.read.clone().join(&self.admin),
            Right::Write => self.write.clone().join(&self.admin),
            Right::Admin => self.admin.clone(),
        }
    }
}

/// All tokens of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(Vec<Arc<Token>>);

impl Tokens {
    /// Reads tables such as `[grafana]` with `token` or `sha256`, and `read`, `write`, `admin`.
    ///
    /// # Errors
    /// Everything that is wrong, each with the name of its token, never with its secret.
    pub fn read(tables: &Table, multi_tenant: bool) -> Result<Self, Vec<String>> {
        let (mut tokens, mut problems) = (Vec::<Arc<Token>>::new(), Vec::new());
        if tables.len() > MAX_TOKENS {
            return Err(vec![format!("{} tokens are over the limit of {MAX_TOKENS}", tables.len())]);
        }
        for (name, value) in tables {
            match read(name, value, multi_tenant, &mut problems) {
                Some(token) if tokens.iter().any(|known| known.digest == token.digest) => {
                    problems.push(format!("tokens.{name}: another token is the same"));
                }
                Some(token) => tokens.push(Arc::new(token)),
                None => {}
            }
        }
        if problems.is_empty() { Ok(Self(tokens)) } else { Err(problems) }
    }

    /// [`Self::read`] of a text, which must hold at least one token.
    ///
    /// # Errors
    /// As there, and when the text is not TOML.
    pub fn parse(text: &str, multi_tenant: bool) -> Result<Self, Vec<String>> {
        // The parser's own text would show the line, secret and all.
        let tables: Table = toml::from_str(text).map_err(|error: toml::de::Error| {
            let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count());
            vec![format!("line {}: {}", line.max(1), error.message())]
        })?;
        if tables.is_empty() {
            return Err(vec!["expected at least one token, as [grafana] with token and read".to_owned()]);
        }
        Self::read(&tables, multi_tenant)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in no meaningful order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Token>> {
        self.0.iter()
    }

    /// The token with this secret. How long it takes tells nothing about how near a guess came, nor which token it met.
    pub fn find(&self, secret: &[u8]) -> Option<Arc<Token>> {
        let presented = hash(secret);
        let (mut found, mut at) = (Choice::from(0), 0u64);
        for (index, token) in self.0.iter().enumerate() {
            let same = token.digest.ct_eq(&presented);
            at.conditional_assign(&(index as u64), same);
            found |= same;
        }
        bool::from(found).then(|| Arc::clone(&self.0[at as usize]))
    }
}

fn hash(secret: &[u8]) -> [u8; SHA256_OUTPUT_LEN] {
    digest(&SHA256, secret).as_ref().try_into().expect("the digest has the algorithm's length")
}

/// One token, or what is wrong with it.
fn read(name: &str, value: &Value, multi_tenant: bool, problems: &mut Vec<String>) -> Option<Token> {
    let before = problems.len();
    let mut problem = |what: String| problems.push(format!("tokens.{name}{what}"));
    let Some(table) = value.as_table() else {
        problem(": expected a table with token or sha256, and read, write or admin".to_owned());
        return None;
    };
    let mut secret = None;
    let mut reaches = [Reach::none(), Reach::none(), Reach::none()];
    for (key, value) in table {
        let at = ["read", "write", "admin"].iter().position(|right| right == key);
        match (key.as_str(), at) {
            (_, Some(at)) => match reach(value, multi_tenant) {
                Ok(reach) => reaches[at] = reach,
                Err(what) => problem(format!(".{key}: {what}")),
            },
            ("token" | "sha256", _) => {
                let read = if key == "token" { plain(value) } else { hashed(value) };
                match read {
                    Ok(digest) if secret.is_none() => secret = Some(digest),
                    Ok(_) => problem(": expected token or sha256, got both".to_owned()),
                    Err(expected) => problem(format!(".{key}: expected {expected}")),
                }
            }
            (key, _) => problem(format!(
                ": unknown key {key:?}{}",
                suggest(key, ["token", "sha256", "read", "write", "admin"])
            )),
        }
    }
    if secret.is_none() && !table.contains_key("token") && !table.contains_key("sha256") {
        problem(": has neither token nor sha256".to_owned());
    }
    if !["read", "write", "admin"].iter().any(|right| table.contains_key(*right)) {
        problem(": has no right; give it read, write or admin".to_owned());
    } else if before == problems.len() && reaches.iter().all(Reach::is_none) {
        problems.push(format!("tokens.{name}: has no right for any tenant"));
    }
    if problems.len() > before {
        return None;
    }
    let [read, write, admin] = reaches;
    Some(Token { name: name.into(), digest: secret?, read, write, admin })
}

fn plain(value: &Value) -> Result<[u8; SHA256_OUTPUT_LEN], String> {
    let lengths = MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES;
    let visible = |text: &&str| lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    let text = value.as_str().filter(visible);
    text.map(|text| hash(text.as_bytes())).ok_or_else(|| {
        format!(
            "{MIN_TOKEN_BYTES} to {MAX_TOKEN_BYTES} visible ASCII characters, as openssl rand -hex 32 makes"
        )
    })
}

fn hashed(value: &Value) -> Result<[u8; SHA256_OUTPUT_LEN], String> {
    let digits = |text: &str| {
        let mut digest = [0; SHA256_OUTPUT_LEN];
        if text.len() != 2 * digest.len() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        for (at, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(digest)
    };
    value
        .as_str()
        .and_then(digits)
        .ok_or_else(|| "64 hexadecimal characters, as printf %s TOKEN | sha256sum prints".to_owned())
}

fn reach(value: &Value, multi_tenant: bool) -> Result<Reach, String> {
    let expected = || format!("expected true, false or a list of tenants, got {value}");
    match value {
        Value::Boolean(true) => Ok(Reach::All),
        Value::Boolean(false) => Ok(Reach::none()),
        Value::Array(items) => {
            let mut tenants = Vec::new();
            for item in items {
                let tenant = TenantId::new(item.as_str().ok_or_else(expected)?);
                tenants.push(tenant.map_err(|error| error.to_string())?);
            }
            let other = tenants.iter().find(|tenant| tenant.as_str() != TenantId::ANONYMOUS);
            match other.filter(|_| !multi_tenant) {
                Some(other) => Err(format!(
                    "there is no tenant {:?}: multi_tenant is off, so that all data is the tenant {:?}'s; \
                     use true",
                    other.as_str(),
                    TenantId::ANONYMOUS
                )),
                None => Ok(Reach::of(tenants)),
            }
        }
        _ => Err(expected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants(names: &[&str]) -> Reach {
        Reach::of(names.iter().map(|name| TenantId::new(name).unwrap()).collect())
    }

    #[test]
    fn a_token_is_found_by_its_secret_plain_or_hashed() {
        let tokens = Tokens::parse(
            "[grafana]\ntoken = '0123456789abcdef'\nread = ['b', 'a', 'b']\n\
             [agents]\nsha256 = '4f8b1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7'\nwrite = true\n\
             [ops]\nsha256 = '9A9F5111F7B27A781F1F1DDDE5EBC2DD2B796BFC7365C9C28B548E564176929F'\nadmin = ['a']",
            true,
        )
        .unwrap();
        let grafana = tokens.find(b"0123456789abcdef").unwrap();
        assert_eq!(grafana.name(), "grafana");
        assert_eq!(grafana.reach(Right::Read), tenants(&["a", "b"]));
        assert!(grafana.reach(Right::Write).is_none() && grafana.reach(Right::Admin).is_none());
        assert_eq!(tokens.find(b"0123456789abcdeg"), None);
        assert_eq!(tokens.find(b""), None);
        let ops = tokens.iter().find(|token| token.name() == "ops").unwrap();
        assert_eq!(ops.reach(Right::Read), tenants(&["a"]));
        assert_eq!(ops.reach(Right::Write), tenants(&["a"]));
        assert_eq!(Tokens::default().find(b"0123456789abcdef"), None);
    }

    #[test]
    fn hashes_are_those_of_sha256sum() {
        // printf %s correct-horse-battery-staple | sha256sum
        let hash = digest(&SHA256, b"correct-horse-battery-staple");
        let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("[a]\nsha256 = '{hex}'\nread = true");
        let tokens = Tokens::parse(&text, false).unwrap();
        assert_eq!(tokens.find(b"correct-horse-battery-staple").unwrap().name(), "a");
        assert!(!format!("{tokens:?}").contains(&hex[..8]));
    }

    #[test]
    fn what_is_wrong_is_named_without_the_secret() {
        for (text, wanted) in [
            ("", "at least one token"),
            ("[a]\ntoken = 'secret'\nread = true", "tokens.a.token: expected 16 to 1024 visible"),
            ("[a]\ntoken = 'secret secret secret'\nread = true", "tokens.a.token: expected 16"),
            ("[a]\nsha256 = 'secret'\nread = true", "tokens.a.sha256: expected 64 hex"),
            ("[a]\nread = true", "tokens.a: has neither token nor sha256"),
            ("[a]\ntoken = 'secret-secret-secret'", "tokens.a: has no right"),
            ("[a]\ntoken = 'secret-secret-secret'\nread = false", "tokens.a: has no right for any tenant"),
            (
                "[a]\ntoken = 'secret-secret-secret'\nreed = true",
                "unknown key \"reed\"; did you mean \"read\"?",
            ),
            ("[a]\ntoken = 'secret-secret-secret'\nread = ['a|b']", "tokens.a.read: tenant id: expected"),
            (
                "[a]\ntoken = 'secret-secret-secret'\nread = 1",
                "tokens.a.read: expected true, false or a list",
            ),
            ("a = 1", "tokens.a: expected a table"),
            ("[a]\ntoken = 'secret", "line 2"),
            (
                "[a]\ntoken = 'secret-secret-secret'\nread = true\n[b]\ntoken = 'secret-secret-secret'\nread = true",
                "tokens.b: another token is the same",
            ),
        ] {
            let problems = Tokens::parse(text, true).unwrap_err().join("\n");
            assert!(problems.contains(wanted), "{text}: {problems}");
            assert!(!problems.contains("secret"), "{text}: {problems}");
        }
        let text = "[a]\ntoken = 'secret-secret-secret'\nread = ['team-a']";
        assert!(Tokens::parse(text, true).is_ok());
        assert!(Tokens::parse(text, false).unwrap_err()[0].contains("multi_tenant is off"));
        assert!(Tokens::parse(&text.replace("team-a", "anonymous"), false).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_no_secret_is_repeated(
            name in "[a-z]{1,4}",
            secret in "[!-&(-~]{8,40}",
            rest in "[a-z0-9 ='\\[\\],.\n-]{0,40}",
        ) {
            let text = format!("[{name}]\ntoken = '{secret}'\n{rest}");
            if let Err(problems) = Tokens::parse(&text, true) {
                // Only what the secret itself says may be secret.
                let said = problems.join("\n");
                proptest::prop_assert!(!said.contains(&secret) || rest.contains(&secret), "{}", said);
            }
        }
    }
}
