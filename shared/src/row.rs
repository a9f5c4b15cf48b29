//! Rows that are read into structs.

/// Declares a struct that is read from a row, each member from the column of its name, or from the one after `=`.
///
/// It does what `#[derive(sqlx::FromRow)]` does. That macro would bring a second copy of sqlx, of its runtime and of its
/// TLS, compiled for the compiler: a tenth of a build.
///
/// ```
/// shared::row! {
///     /// A product's row.
///     #[derive(Debug)]
///     pub struct ProductRow {
///         pub sku: String,
///         pub kind: Option<String> = "type",
///     }
/// }
/// ```
#[macro_export]
macro_rules! row {
    ($(#[$attribute:meta])* $visibility:vis struct $name:ident {
        $($(#[$of_member:meta])* $reach:vis $member:ident: $type:ty $(= $column:literal)?),+ $(,)?
    }) => {
        $(#[$attribute])*
        $visibility struct $name {
            $($(#[$of_member])* $reach $member: $type),+
        }

        impl ::sqlx::FromRow<'_, ::sqlx::postgres::PgRow> for $name {
            fn from_row(row: &::sqlx::postgres::PgRow) -> ::sqlx::Result<Self> {
                Ok(Self { $($member: ::sqlx::Row::try_get(row, $crate::row!(@ $member $($column)?))?),+ })
            }
        }
    };
    (@ $member:ident $column:literal) => { $column };
    (@ $member:ident) => { stringify!($member) };
}
