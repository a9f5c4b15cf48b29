//! The currencies, and how people write amounts of them.
//!
//! The table is ISO 4217, list one, as of 2026 (amendment 180, which withdrew BGN). Funds, metals, and codes for tests and for
//! "no currency" are left out, because nobody is paid in them.

use std::fmt;

use crate::common::Money;

/// Currencies without a minor unit.
const WHOLE: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF";

/// Currencies whose minor unit is a hundredth.
const HUNDREDTHS: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF \
    CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR \
    IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN \
    NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL \
    THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG";

/// Currencies whose minor unit is a thousandth.
const THOUSANDTHS: &str = "BHD IQD JOD KWD LYD OMR TND";

/// Returns the number of decimals of a currency, or `None` if the code is not that of a currency.
pub fn decimals(code: &str) -> Option<u32> {
    let is_in = |list: &str| list.split_ascii_whitespace().any(|known| known == code);
    // The longest list comes first, because it has the currencies that are used most.
    if is_in(HUNDREDTHS) {
        Some(2)
    } else if is_in(WHOLE) {
        Some(0)
    } else if is_in(THOUSANDTHS) {
        Some(3)
    } else {
        None
    }
}

impl Money {
    /// Returns the amount as people write it, without the currency: 1999 is `19.99` in EUR and `1999` in JPY. Without a known
    /// currency nobody knows the decimals, so it is the number of minor units.
    pub fn decimal(&self) -> String {
        let decimals = decimals(&self.currency).unwrap_or(0);
        let unit = 10_u64.pow(decimals);
        let (sign, amount) = (if self.amount < 0 { "-" } else { "" }, self.amount.unsigned_abs());
        if decimals == 0 {
            return format!("{sign}{amount}");
        }
        let width = decimals as usize;
        format!("{sign}{}.{:0width$}", amount / unit, amount % unit)
    }
}

/// The amount as people write it, with the currency: `19.99 EUR`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match decimals(&self.currency) {
            Some(_) => f.pad(&format!("{} {}", self.decimal(), self.currency)),
            None => f.pad(&format!("{} minor units of {}", self.decimal(), self.currency.escape_debug())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn said(amount: i64, currency: &str) -> String {
        Money { amount, currency: currency.to_owned() }.to_string()
    }

    #[test]
    fn an_amount_has_the_decimals_of_its_currency() {
        for (amount, currency, expected) in [
            (1905, "EUR", "19.05 EUR"),
            (1905, "JPY", "1905 JPY"),
            (1905, "KWD", "1.905 KWD"),
            (5, "EUR", "0.05 EUR"),
            (-1905, "USD", "-19.05 USD"),
            (-5, "TND", "-0.005 TND"),
            (0, "XOF", "0 XOF"),
            (i64::MIN, "JPY", "-9223372036854775808 JPY"),
            (1905, "QQQ", "1905 minor units of QQQ"),
            (1, "\u{1b}[2J", "1 minor units of \\u{1b}[2J"),
        ] {
            assert_eq!(said(amount, currency), expected);
        }
        let padded = format!("{:>12}", Money { amount: 5, currency: "EUR".to_owned() });
        assert_eq!(padded, "    0.05 EUR");
    }

    #[test]
    fn a_code_that_nobody_is_paid_in_is_no_currency() {
        // No code, none, a test, gold, the IMF's unit, a fund, and withdrawn ones.
        for code in ["", "QQQ", "XXX", "XTS", "XAU", "XDR", "CHE", "CLF", "DEM", "BGN", "HRK", "eur", "EUR "]
        {
            assert_eq!(decimals(code), None, "{code}");
        }
    }

    #[test]
    fn a_code_is_in_one_list_once() {
        let all: Vec<&str> =
            [WHOLE, HUNDREDTHS, THOUSANDTHS].iter().flat_map(|list| list.split_ascii_whitespace()).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert_eq!(all.len(), 155);
        assert!(all.iter().all(|code| code.len() == 3 && code.chars().all(|c| c.is_ascii_uppercase())));
    }
}
