//! The URL of a database. sqlx's own errors and log lines may contain parts of it.

use sqlx::postgres::PgConnectOptions;

/// The parameters that sqlx knows. It would log others with their values.
const PARAMETERS: [&str; 17] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
];

/// Why text is not the URL of a database. It does not contain the text.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseUrlError {
    /// It has another scheme.
    #[error("it must begin with postgres://")]
    Scheme,
    /// A reserved character was not encoded, or the URL is wrong in another way.
    #[error(
        "{0}; in the user's name and the password, write characters that URLs reserve as %23 for #, %2F for /, %3F for ?, \
         %40 for @, %3A for : and %25 for %"
    )]
    Url(&'static str),
    /// The part before the parameters cannot be parsed.
    #[error(
        "it is no URL ({0}); in the user's name and the password, write characters that URLs reserve as %23 for #, %2F for \
         /, %3F for ?, %40 for @, %3A for : and %25 for %"
    )]
    Unparsable(sqlx::Error),
    /// A parameter is not known.
    #[error("parameter {number} behind the ? is not known; there are {}, options", PARAMETERS.join(", "))]
    Parameter {
        /// The number of the parameter, from 1.
        number: usize,
    },
    /// A parameter has a wrong value.
    #[error("a parameter behind the ? has a value that can't be used")]
    Value,
}

/// Parses the URL of a database. Unlike sqlx it refuses URLs in which a part of the password would be taken for something
/// else, and its errors contain no part of the URL.
///
/// # Errors
/// Fails if the text is not the URL of a PostgreSQL database.
pub fn database_url(text: &str) -> Result<PgConnectOptions, DatabaseUrlError> {
    let rest = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let rest = rest.ok_or(DatabaseUrlError::Scheme)?;
    if rest.contains('#') {
        return Err(DatabaseUrlError::Url("it has a #"));
    }
    let (before, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    if before.split_once('/').is_some_and(|(_, database)| database.contains('@')) {
        return Err(DatabaseUrlError::Url("the database's name has an @, or the password has a /"));
    }
    if before.matches('@').count() > 1 {
        return Err(DatabaseUrlError::Url("it has two @"));
    }
    let parameters = parameters.split('&').filter(|parameter| !parameter.is_empty());
    for (index, parameter) in parameters.enumerate() {
        let name = parameter.split('=').next().unwrap_or_default();
        if !PARAMETERS.contains(&name) && name != "options" && !name.starts_with("options[") {
            return Err(DatabaseUrlError::Parameter { number: index + 1 });
        }
    }
    let without_parameters = text.split('?').next().unwrap_or_default();
    without_parameters.parse::<PgConnectOptions>().map_err(DatabaseUrlError::Unparsable)?;
    text.parse().map_err(|_| DatabaseUrlError::Value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_may_have_any_character_that_is_encoded() {
        let options =
            database_url("postgres://ada:S3%23c%2Fr%40t@db:5433/shop?sslmode=require").expect("a URL");
        assert_eq!((options.get_host(), options.get_port()), ("db", 5433));
        assert_eq!((options.get_username(), options.get_database()), ("ada", Some("shop")));
        for url in [
            "postgresql://u@h/d?application_name=x&options[statement_timeout]=1s",
            "postgres://%2Fvar%2Frun/d",
            "postgres://u@127.0.0.1:1/d?host=/var/run/postgresql&user=a@b",
            "postgres://u@[::1]:5432/d",
        ] {
            assert!(database_url(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn no_error_contains_a_part_of_the_url() {
        for (url, said) in [
            ("postgres://u:S3cr3t#1@db/x", "it has a #"),
            ("postgres://u:123#S3cr3t@db/x", "it has a #"),
            ("postgres://u:S3cr3t/1@db/x", "a /"),
            ("postgres://u:1/S3cr3t@db/x", "a /"),
            ("postgres://u:1?S3cr3t@db/x", "parameter 1"),
            ("postgres://u:S3cr3t?1@db/x", "parameter 1"),
            ("postgres://u:S3@cr3t@db/x", "two @"),
            ("postgres://u:S3cr3t@db:port/x", "invalid port number"),
            ("postgres://u:S3cr3t", "invalid port number"),
            ("postgres://u:%FFS3cr3t@db/x", "it is no URL"),
            ("mysql://u:S3cr3t@db/x", "begin with postgres://"),
            ("S3cr3t", "begin with postgres://"),
            ("postgres://u@db/x?sslmode=require&pasword=S3cr3t", "parameter 2"),
            ("postgres://u@db/x?sslmode=S3cr3t", "a value that can't be used"),
            ("postgres://u@db/x?port=S3cr3t", "a value that can't be used"),
        ] {
            let error = database_url(url).expect_err(url);
            let told = format!("{error} {error:?}");
            assert!(told.contains(said), "{url}: {told}");
            assert!(!told.contains("S3") && !told.contains("cr3t"), "{told}");
        }
    }
}
