//! Settings that may contain a password. Each is a flag and an environment variable; a file that the variable `<NAME>_FILE`
//! names may have it instead. The text is parsed after the command line, by code whose errors do not contain it.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The text of a setting. It is not printed, and its type accepts everything, so that no error about the command line
/// contains it.
#[derive(Clone, Default)]
pub struct Secret(String);

/// A setting that cannot be used. The text names the setting, and does not contain its value.
#[derive(Debug, thiserror::Error)]
#[error("{setting} {reason}")]
pub struct SettingError {
    setting: String,
    reason: String,
}

impl Secret {
    /// Parses the setting `name`. Its text is this one, or the contents of the file that `<NAME>_FILE` names. Returns
    /// `None` if there is neither. `parse` must not put the text into its error.
    ///
    /// # Errors
    /// Fails if the text and a file are both given, if the file cannot be read, or if the text cannot be parsed.
    pub fn parse<T, E: fmt::Display>(
        given: Option<&Self>,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, SettingError> {
        let file = std::env::var_os(format!("{name}_FILE"));
        Self::parse_either(given, name, file, parse)
    }

    /// Does the same as [`Secret::parse`], for a setting that must be given.
    ///
    /// # Errors
    /// Fails also if there is neither a text nor a file.
    pub fn require<T, E: fmt::Display>(
        given: Option<&Self>,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, SettingError> {
        Self::parse(given, name, parse)?.ok_or_else(|| {
            let reason = format!("is missing; set it, or {name}_FILE to the path of a file with it");
            SettingError { setting: name.to_owned(), reason }
        })
    }

    fn parse_either<T, E: fmt::Display>(
        given: Option<&Self>,
        name: &str,
        file: Option<OsString>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, SettingError> {
        let given = given.filter(|secret| !secret.0.trim().is_empty());
        let file = file.filter(|path| !path.is_empty()).map(PathBuf::from);
        let (setting, text) = match (given, file) {
            (None, None) => return Ok(None),
            (Some(secret), None) => (name.to_owned(), secret.0.trim().to_owned()),
            (None, Some(path)) => {
                let setting = format!("{name}_FILE");
                match fs::read_to_string(&path) {
                    Ok(text) => (setting, text.trim().to_owned()),
                    Err(error) => {
                        let reason = format!("can't be used: {} can't be read: {error}", path.display());
                        return Err(SettingError { setting, reason });
                    }
                }
            }
            (Some(_), Some(_)) => {
                let reason = format!("can't be used: {name} is set too; keep one of them");
                return Err(SettingError { setting: format!("{name}_FILE"), reason });
            }
        };
        let unusable = |error| SettingError { setting, reason: format!("can't be used: {error}") };
        parse(&text).map(Some).map_err(unusable)
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Removes from an error about the command line `words` what may be a secret: the values of settings whose values `--help`
/// hides. If one of them was given as a flag, an unexpected word may be the rest of it, behind a space.
pub fn redact(mut error: clap::Error, command: &mut clap::Command, words: &[OsString]) -> clap::Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let argument = text(ContextKind::InvalidArg).unwrap_or_default();
    let secret_given = || words.iter().any(|word| hides(command, &word.to_string_lossy()));
    if error.kind() == ErrorKind::UnknownArgument && !argument.starts_with("--") && secret_given() {
        let said = "there is an unexpected argument, which is not shown because it may be part of a secret; put values \
                    with spaces in quotes";
        return command.error(ErrorKind::UnknownArgument, said);
    }
    if text(ContextKind::InvalidValue).is_some() && hides(command, &argument) {
        error.insert(ContextKind::InvalidValue, ContextValue::String("(not shown)".to_owned()));
    }
    error
}

/// Returns whether the value of this flag is hidden, in the command or one below it. The flag may be followed by its value,
/// or by the name of its value as in `--urls <URLS>`.
fn hides(command: &clap::Command, flag: &str) -> bool {
    // A command that was not used can't print its arguments, so their names are compared.
    let Some(name) = flag.split([' ', '=']).next().and_then(|flag| flag.strip_prefix("--")) else {
        return false;
    };
    let hidden = |arg: &clap::Arg| arg.is_hide_env_values_set() && arg.get_long() == Some(name);
    command.get_arguments().any(hidden) || command.get_subcommands().any(|below| hides(below, flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &str, file: Option<&std::path::Path>) -> Result<Option<String>, SettingError> {
        let given: Secret = given.parse().unwrap_or_else(|never| match never {});
        let file = file.map(|path| path.as_os_str().to_owned());
        Secret::parse_either(Some(&given), "TOKEN", file, |text| Ok::<_, String>(text.to_owned()))
    }

    #[test]
    fn a_secret_is_read_from_its_file() {
        let path = std::env::temp_dir().join(format!("amends-secret-{}", std::process::id()));
        fs::write(&path, "S3cr3t\n").expect("a file");
        let found = read("", Some(&path));
        let both = read("x", Some(&path)).expect_err("both are set").to_string();
        fs::remove_file(&path).expect("removed");
        assert_eq!(found.expect("a secret").as_deref(), Some("S3cr3t"));
        assert!(both.contains("TOKEN_FILE") && both.contains("TOKEN is set too"), "{both}");
        let missing = read("", Some(&path)).expect_err("no file").to_string();
        assert!(missing.contains("TOKEN_FILE") && missing.contains(&path.display().to_string()), "{missing}");
        assert_eq!(read(" ", None).expect("nothing is wrong"), None);
        assert_eq!(read("S3cr3t", None).expect("a secret").as_deref(), Some("S3cr3t"));
    }

    #[test]
    fn an_error_about_the_command_line_contains_no_secret() {
        let http = |text: &str| {
            if text.starts_with("http://") { Ok(text.to_owned()) } else { Err("it must begin with http://") }
        };
        let secret = clap::Arg::new("url").long("url").hide_env_values(true).value_parser(http);
        let mut command = clap::Command::new("amends").subcommand(clap::Command::new("load").arg(secret));
        for (words, said) in [
            (&["amends", "load", "--url", "https://ada:S3cr3t@host"][..], "it must begin with http://"),
            (&["amends", "load", "--url=https://ada:S3cr3t@host"], "it must begin with http://"),
            (&["amends", "load", "--url", "http://ada:a", "S3cr3t@host"], "unexpected argument"),
            (&["amends", "load", "--url=http://ada:a", "-S3cr3t@host"], "unexpected argument"),
            // No secret is given, so the word is shown.
            (&["amends", "load", "lamp=2"], "lamp=2"),
        ] {
            let error = command.try_get_matches_from_mut(words).expect_err("it is wrong");
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            let told = redact(error, &mut command, &words).render().to_string();
            assert!(told.contains(said) && !told.contains("S3cr3t"), "{told}");
        }
    }
}
