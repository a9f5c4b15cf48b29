//! Statements that a unit of work executes later, together with others, in one round trip.

use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, AssertSqlSafe, Encode, PgConnection, Postgres, Type};

/// The parameters of a statement, bound in the order of their numbers.
#[derive(Default)]
pub struct Parameters {
    arguments: PgArguments,
    count: usize,
    error: Option<BoxDynError>,
}

impl Parameters {
    /// Binds the next parameter. A value that cannot be encoded fails the transaction.
    pub fn bind<'v, T: Encode<'v, Postgres> + Type<Postgres>>(&mut self, value: T) -> &mut Self {
        self.count += 1;
        if let Err(error) = self.arguments.add(value) {
            self.error.get_or_insert(error);
        }
        self
    }
}

/// Statements that wait for their execution, with their parameters.
#[derive(Default)]
pub(crate) struct Deferred {
    statements: Vec<String>,
    parameters: Parameters,
}

impl Deferred {
    pub fn add(&mut self, statement: &str, bind: impl FnOnce(&mut Parameters)) {
        self.statements.push(renumbered(statement, self.parameters.count));
        bind(&mut self.parameters);
    }

    /// Executes the statements as one, whose parts are common table expressions. Returns whether there were any.
    pub async fn execute(self, db: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let Self { mut statements, parameters } = self;
        if let Some(error) = parameters.error {
            return Err(sqlx::Error::Encode(error));
        }
        let Some(last) = statements.pop() else { return Ok(false) };
        let mut text = String::new();
        for (number, statement) in statements.iter().enumerate() {
            let with = if number == 0 { "with" } else { "," };
            text.push_str(&format!("{with} part_{number} as ({statement}) "));
        }
        text.push_str(&last);
        sqlx::query_with(AssertSqlSafe(text), parameters.arguments).execute(db).await?;
        Ok(true)
    }
}

/// Returns the statement with its parameters counted from `before` on: `$1` becomes `$8` if `before` is 7.
fn renumbered(statement: &str, before: usize) -> String {
    if before == 0 {
        return statement.to_owned();
    }
    let mut text = String::with_capacity(statement.len() + 16);
    let mut parts = statement.split('$');
    text.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let (number, rest) = part.split_at(digits);
        text.push('$');
        match number.parse::<usize>() {
            Ok(number) => text.push_str(&(number + before).to_string()),
            Err(_) => text.push_str(number),
        }
        text.push_str(rest);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_counted_on_from_those_before() {
        let statement = "insert into a select * from unnest($1::uuid[], $2, $10) where b = $1";
        assert_eq!(renumbered(statement, 0), statement);
        let later = "insert into a select * from unnest($8::uuid[], $9, $17) where b = $8";
        assert_eq!(renumbered(statement, 7), later);
    }
}
