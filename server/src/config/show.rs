//! The settings in force as a file would have them, with where each comes from. Secrets stay hidden.

use std::fmt::{self, Display, Formatter, Write as _};

use toml::Value;

use super::{Config, Origin, all_settings};
use crate::ingest::Limits;
use crate::settings::Settings;
use crate::tokens::{Reach, Right};

/// Prints as a TOML file that means the same, but for the tokens' secrets.
pub struct Shown<'a>(pub &'a Config);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let config = self.0;
        for setting in all_settings() {
            let value = config.value(setting.name).expect("it is one of them");
            let line = format!("{} = {value}", setting.name);
            writeln!(f, "{line:<50} # {}", Origin::shown(config.origins.get(setting.name)))?;
        }
        for (tenant, limits) in &config.tenants {
            writeln!(f, "\n[tenants.{}]", key(tenant.as_str()))?;
            for setting in Limits::ALL {
                let (own, common) = (limits.get(setting.name), config.limits.get(setting.name));
                if let Some(own) = own.filter(|own| Some(own) != common.as_ref()) {
                    writeln!(f, "{} = {own}", setting.name)?;
                }
            }
        }
        for token in config.tokens.iter() {
            writeln!(f, "\n[tokens.{}] # its secret is not shown", key(token.name()))?;
            for right in [Right::Read, Right::Write, Right::Admin] {
                writeln!(f, "{} = {}", right.as_str(), reach(&token.reach(right)))?;
            }
        }
        Ok(())
    }
}

impl Origin {
    fn shown(origin: Option<&Self>) -> String {
        match origin {
            None => "default".to_owned(),
            Some(Self::Flag) => "command line".to_owned(),
            Some(Self::Environment) => "environment".to_owned(),
            Some(Self::File(line)) => format!("file, line {line}"),
        }
    }
}

/// A name as a TOML key.
fn key(name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { Value::from(name).to_string() }
}

fn reach(reach: &Reach) -> String {
    match reach {
        Reach::All => "true".to_owned(),
        Reach::Some(tenants) if tenants.is_empty() => "false".to_owned(),
        Reach::Some(tenants) => {
            let mut list = String::new();
            for tenant in tenants.iter() {
                let comma = if list.is_empty() { "" } else { ", " };
                write!(list, "{comma}{:?}", tenant.as_str()).expect("a string takes it");
            }
            format!("[{list}]")
        }
    }
}
