//! The countries, and which of them need a postal code in an address.

/// ISO 3166-1 alpha-2, and `XK`: Kosovo has no code of its own, and the Universal Postal Union, the European Union and most
/// carriers use this one.
const COUNTRIES: &str = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS \
    BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ \
    FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT \
    JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP \
    MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE \
    RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV \
    TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW";

/// The countries in which an address without a postal code is not complete. Elsewhere there are no postal codes, or people
/// may do without. It is the address data of libaddressinput (Chrome and Android, 2026): countries whose required fields
/// have the postal code.
const POSTAL_CODE_NEEDED: &str = "AS AT AU AX BE BL BR CA CH CN CZ DE DK EE ES FI FK FM FR GB GF GG GL GP GR GS GU HU IM \
    IN IO IT JE JP KR LI LT LU LV MF MH MP MQ MX MY NC NL NO NZ PF PL PM PN PR PT PW RE RO RU SE SG SH SJ SK SM TC TR TW \
    UA US VI WF YT ZA";

/// Returns whether a country has this code.
pub fn exists(code: &str) -> bool {
    COUNTRIES.split_ascii_whitespace().any(|known| known == code)
}

/// Returns whether an address in this country needs a postal code. Without one, people leave the field empty or type
/// something into it, such as `00000`.
pub fn needs_postal_code(code: &str) -> bool {
    POSTAL_CODE_NEEDED.split_ascii_whitespace().any(|known| known == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_country_with_needed_postal_codes_exists() {
        assert!(POSTAL_CODE_NEEDED.split_ascii_whitespace().all(exists));
        assert_eq!(COUNTRIES.split_ascii_whitespace().count(), 250);
    }

    #[test]
    fn postal_codes_are_needed_where_everybody_has_one() {
        for country in ["DE", "US", "JP", "GB", "FR"] {
            assert!(needs_postal_code(country), "{country}");
        }
        for country in ["HK", "QA", "AE", "IE", "XK"] {
            assert!(exists(country) && !needs_postal_code(country), "{country}");
        }
        for nowhere in ["XX", "de", "DEU", "", "AD AE"] {
            assert!(!exists(nowhere), "{nowhere}");
        }
    }
}
