//! The command line and environment of `spanflame serve`: a flag and a variable for each setting.

use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, value_parser};
use toml::Value;

use super::{Config, Origin, TOKENS_VARIABLE, all_settings};
use crate::ingest::Limits;
use crate::settings::{Setting, Settings};

/// What the command line and the environment say.
#[derive(Clone, Debug, Default)]
pub struct ServeArgs {
    /// The file with the same settings.
    pub config: Option<PathBuf>,
    /// The settings that were given, and where.
    pub given: Vec<(&'static Setting, Value, Origin)>,
    /// Variables that are probably meant for the server and are no settings, with what was probably meant.
    pub mistyped: Vec<String>,
    /// Tokens of the environment. There is no flag: everyone on a machine can see what a process was called with.
    pub tokens: Option<String>,
}

impl clap::Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .env("SPANFLAME_CONFIG")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("TOML file with the same settings");
        let config_default = Config::default();
        let flag = |setting| flag(setting, &config_default);
        command
            .arg(config)
            .args(Config::ALL.iter().map(flag))
            .next_help_heading("What each tenant may")
            .args(Limits::ALL.iter().map(flag))
            .after_help(format!(
                "{TOKENS_VARIABLE} may hold tokens, in the form of the file that --tokens-file names."
            ))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = all_settings().filter_map(|setting| {
            let origin = match matches.value_source(setting.name)? {
                ValueSource::EnvVariable => Origin::Environment,
                _ => Origin::Flag,
            };
            Some((setting, matches.get_one::<Value>(setting.name)?.clone(), origin))
        });
        Ok(Self {
            config: matches.get_one("config").cloned(),
            given: given.collect(),
            mistyped: std::env::vars_os().filter_map(|(name, _)| mistyped(name.to_str()?)).collect(),
            tokens: std::env::var(TOKENS_VARIABLE).ok(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// [`ServeArgs`] for commands that only want the data directory: everything that a server is told can be told them, and
/// help shows no more than they need.
#[derive(Clone, Debug, Default)]
pub struct DataArgs(ServeArgs);

impl DataArgs {
    /// All that was said.
    pub fn into_inner(self) -> ServeArgs {
        self.0
    }
}

impl clap::Args for DataArgs {
    fn augment_args(command: Command) -> Command {
        let hidden = |arg: &Arg| {
            let name = arg.get_id().as_str();
            name != "data_dir" && all_settings().any(|setting| setting.name == name)
        };
        ServeArgs::augment_args(command)
            .mut_args(|arg| if hidden(&arg) { arg.hide(true) } else { arg })
            .next_help_heading(None::<&str>)
            .after_help("All settings of the server can be given, and are read from its file and variables.")
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for DataArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        ServeArgs::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

/// What is wrong with a variable's name. The bridge's variables begin alike, so that a name must be very near.
fn mistyped(name: &str) -> Option<String> {
    let rest = name.strip_prefix("SPANFLAME_")?.to_lowercase();
    let names = || all_settings().map(|setting| setting.name).chain(["config", "tokens"]);
    let near = names().find(|known| *known != rest && strsim::damerau_levenshtein(known, &rest) <= 2)?;
    let known = names().any(|known| known == rest);
    (!known).then(|| format!("{name} is no setting; did you mean SPANFLAME_{}?", near.to_uppercase()))
}

fn flag(setting: &'static Setting, default: &Config) -> Arg {
    let help: Vec<&str> = setting.help.lines().map(str::trim).collect();
    let default = default.value(setting.name).map(|value| shown_default(&value)).unwrap_or_default();
    let default = if default.is_empty() { default } else { format!(" [default: {default}]") };
    let arg = Arg::new(setting.name)
        .long(setting.flag())
        .env(setting.variable())
        .value_name(setting.placeholder)
        .value_parser(ValueParser::new(setting.parse))
        .allow_negative_numbers(true)
        .help(format!("{}{default}", help.join(" ")));
    if setting.switch { arg.num_args(0..=1).default_missing_value("true") } else { arg }
}

/// A default as help and documentation show it; nothing for none.
pub(super) fn shown_default(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(shown_default).collect::<Vec<_>>().join(","),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_mistyped_or_somebody_elses() {
        let said = mistyped("SPANFLAME_LISTN").expect("it is near");
        assert_eq!(said, "SPANFLAME_LISTN is no setting; did you mean SPANFLAME_LISTEN?");
        for good in [
            "SPANFLAME_LISTEN",
            "SPANFLAME_LOG",
            "SPANFLAME_CONFIG",
            "SPANFLAME_TOKENS",
            "SPANFLAME_FREQUENCY",
            "SPANFLAME_MAX_SPAN_NAMES",
            "SPANFLAME_SCOPE",
            "SPANFLAME_CLOCK",
            "SPANFLAME_BIN",
            "SPANFLAME_URL",
            "LISTN",
        ] {
            assert_eq!(mistyped(good), None, "{good}");
        }
    }
}
