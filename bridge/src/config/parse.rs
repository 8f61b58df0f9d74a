//! One value at a time: from text to a checked setting, or to an error that names the setting and its range.

use std::ffi::OsString;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::error::ConfigError;

pub(super) struct Environment<'a> {
    lookup: &'a dyn Fn(&str) -> Option<OsString>,
}

impl<'a> Environment<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        Self { lookup }
    }

    /// An empty variable is an unset one, as everywhere in OpenTelemetry.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, ConfigError> {
        match (self.lookup)(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) if text.trim().is_empty() => Ok(None),
            Some(Ok(text)) => Ok(Some(text.trim().to_owned())),
            Some(Err(raw)) => Err(ConfigError::new(name, "UTF-8 text", &raw.to_string_lossy())),
        }
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        self.choice(name, &[("true", true), ("false", false), ("1", true), ("0", false)])
    }

    pub(super) fn choice<T: Copy>(
        &self,
        name: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text)) {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                Err(ConfigError::new(name, format!("one of {}", words.join(", ")), &text))
            }
        }
    }

    pub(super) fn number(&self, name: &str, low: u64, high: u64) -> Result<Option<u64>, ConfigError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.parse() {
            Ok(value) if (low..=high).contains(&value) => Ok(Some(value)),
            _ => Err(ConfigError::new(name, format!("a whole number from {low} to {high}"), &text)),
        }
    }

    pub(super) fn seconds(&self, name: &str) -> Result<Option<Duration>, ConfigError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let error = || ConfigError::new(name, "seconds from 1 to 15", &text);
        let seconds: f64 = text.parse().map_err(|_| error())?;
        let interval = Duration::try_from_secs_f64(seconds).map_err(|_| error())?;
        self::interval(name, interval).map(Some).map_err(|_| error())
    }

    /// Percent, or `off`: then the inner value is `None`.
    pub(super) fn budget(&self, name: &str) -> Result<Option<Option<f64>>, ConfigError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        if text.eq_ignore_ascii_case("off") {
            return Ok(Some(None));
        }
        let percent = text.parse().map_err(|_| ConfigError::new(name, BUDGET, &text))?;
        self::budget(name, percent).map(|share| Some(Some(share)))
    }

    pub(super) fn basic_auth(&self) -> Result<Option<(String, String)>, ConfigError> {
        const USER: &str = "PYROSCOPE_BASIC_AUTH_USER";
        const PASSWORD: &str = "PYROSCOPE_BASIC_AUTH_PASSWORD";
        match (self.text(USER)?, self.text(PASSWORD)?) {
            (None, None) => Ok(None),
            (Some(user), Some(password)) => Ok(Some(credentials(USER, user, password)?)),
            (Some(_), None) => Err(ConfigError::new(PASSWORD, format!("a password, as {USER} is set"), "")),
            (None, Some(_)) => Err(ConfigError::new(USER, format!("a user name, as {PASSWORD} is set"), "")),
        }
    }

    /// `name,name`.
    pub(super) fn names(&self, name: &str) -> Result<Vec<String>, ConfigError> {
        let text = self.text(name)?.unwrap_or_default();
        Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
    }

    /// `key=value,key=value`.
    pub(super) fn labels(&self, name: &str) -> Result<Vec<(String, String)>, ConfigError> {
        let Some(text) = self.text(name)? else { return Ok(Vec::new()) };
        let error = || ConfigError::new(name, "name=value pairs separated by commas", &text);
        text.split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').ok_or_else(error)?;
                Ok((key.trim().to_owned(), value.trim().to_owned()))
            })
            .collect()
    }

    /// `OTEL_RESOURCE_ATTRIBUTES`, whose values are percent-encoded.
    pub(super) fn resource_attributes(&self) -> Result<Vec<(String, String)>, ConfigError> {
        const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
        self.labels(NAME)?
            .into_iter()
            .map(|(key, value)| match percent_decode_str(&value).decode_utf8() {
                Ok(decoded) => Ok((key, decoded.into_owned())),
                Err(_) => Err(ConfigError::new(NAME, "percent-encoded UTF-8 values", &value)),
            })
            .filter(|attribute| !matches!(attribute, Ok((_, value)) if value.is_empty()))
            .collect()
    }
}

pub(super) fn in_range(setting: &str, value: u64, low: u64, high: u64) -> Result<u64, ConfigError> {
    if (low..=high).contains(&value) {
        return Ok(value);
    }
    Err(ConfigError {
        setting: setting.to_owned(),
        expected: format!("a whole number from {low} to {high}"),
        value: value.to_string(),
    })
}

pub(super) fn interval(setting: &str, value: Duration) -> Result<Duration, ConfigError> {
    if (Duration::from_secs(1)..=Duration::from_secs(15)).contains(&value) {
        return Ok(value);
    }
    Err(ConfigError {
        setting: setting.to_owned(),
        expected: "1 to 15 seconds".to_owned(),
        value: format!("{value:?}"),
    })
}

const BUDGET: &str = "percent from 0.01 to 100, or off";

/// Percent as a share.
pub(super) fn budget(setting: &str, percent: f64) -> Result<f64, ConfigError> {
    if (0.01..=100.0).contains(&percent) {
        return Ok(percent / 100.0);
    }
    Err(ConfigError { setting: setting.to_owned(), expected: BUDGET.to_owned(), value: percent.to_string() })
}

pub(super) fn not_empty(setting: &str, value: String) -> Result<String, ConfigError> {
    if value.trim().is_empty() {
        return Err(ConfigError::new(setting, "a name", &value));
    }
    Ok(value)
}

/// Something that may stand in an HTTP header.
pub(super) fn header(setting: &str, value: String) -> Result<String, ConfigError> {
    if value.is_empty() || value.chars().any(|c| !(' '..='~').contains(&c)) {
        return Err(ConfigError::new(setting, "printable ASCII characters", &value));
    }
    Ok(value)
}

pub(super) fn credentials(
    setting: &str,
    user: String,
    password: String,
) -> Result<(String, String), ConfigError> {
    // RFC 7617: the first colon ends the user name.
    if user.contains(':') {
        return Err(ConfigError::new(setting, "a user name without a colon", &user));
    }
    Ok((user, password))
}

/// The base of the server's URLs, without a slash at its end.
pub(super) fn url(setting: &str, text: &str) -> Result<String, ConfigError> {
    let error = |expected: &str| {
        let mut error = ConfigError::new(setting, expected, text);
        // Whatever else is wrong with it, there may be a password or a token in it.
        if text.contains(['@', '?', '#']) {
            error.value = "a URL with credentials, a query or a fragment".to_owned();
        }
        Err(error)
    };
    let text = text.trim();
    let Some((scheme, rest)) = text.split_once("://") else {
        return error("a URL such as http://127.0.0.1:4040");
    };
    match scheme {
        "http" => {}
        "https" if cfg!(feature = "tls") => {}
        "https" => return error("an http URL, as the crate was built without its `tls` feature"),
        _ => return error("an http or https URL"),
    }
    if rest.contains(['?', '#']) || rest.contains(char::is_whitespace) {
        return error("a URL without query, fragment or blanks");
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return error("a URL without credentials (give them as basic_auth)");
    }
    // An IPv6 address has colons of its own, inside brackets.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if host.is_empty() || port.is_some_and(|port| !matches!(port.parse::<u16>(), Ok(1..))) {
        return error("a host, and a port from 1 to 65535 if there is one");
    }
    Ok(text.trim_end_matches('/').to_owned())
}
