//! The secret in an `Authorization` header.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

/// Some clients leave the padding away.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The longest value that is looked at, in bytes.
const MAX_BYTES: usize = 4096;

/// The token that `Bearer` brings, or the password of `Basic`; the user's name has no meaning.
pub(super) fn secret(value: &[u8]) -> Option<Vec<u8>> {
    let value = std::str::from_utf8(value).ok().filter(|value| value.len() <= MAX_BYTES)?;
    let (scheme, rest) = value.trim().split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = BASE64.decode(rest).ok()?;
    let colon = pair.iter().position(|b| *b == b':')?;
    Some(pair[colon + 1..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_and_basic_bring_the_same() {
        for value in [
            "Bearer s3cret:x",
            "bearer  s3cret:x ",
            "Basic dXNlcjpzM2NyZXQ6eA==",
            "basic dXNlcjpzM2NyZXQ6eA",
            "Basic OnMzY3JldDp4",
        ] {
            assert_eq!(secret(value.as_bytes()).as_deref(), Some(&b"s3cret:x"[..]), "{value}");
        }
        for value in ["", "Bearer", "s3cret", "Basic !!!", "Basic dXNlcg==", "Digest a", "Basic"] {
            assert_eq!(secret(value.as_bytes()), None, "{value}");
        }
        assert_eq!(secret(&[b'x'; 5000]), None);
        assert_eq!(secret(b"Bearer \xff"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_token_survives_both_schemes(token in "[!-~]{1,64}", user in "[ -9;-~]{0,16}") {
            let basic = format!("Basic {}", BASE64.encode(format!("{user}:{token}")));
            proptest::prop_assert_eq!(secret(basic.as_bytes()), Some(token.clone().into_bytes()));
            let bearer = format!("Bearer {token}");
            proptest::prop_assert_eq!(secret(bearer.as_bytes()), Some(token.into_bytes()));
        }

        #[test]
        fn no_header_panics(value in proptest::collection::vec(proptest::num::u8::ANY, 0..64), basic in "[A-Za-z0-9+/=]{0,32}") {
            secret(&value);
            secret(format!("Basic {basic}").as_bytes());
        }
    }
}
