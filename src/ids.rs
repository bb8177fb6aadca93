//! The ids of AMIs and of AWS accounts.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::escape::quoted;

/// The id of an AMI: `ami-` and 8 or 17 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct AmiId(String);

impl FromStr for AmiId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let well_formed = text.strip_prefix("ami-").is_some_and(|digits| {
            matches!(digits.len(), 8 | 17)
                && digits
                    .bytes()
                    .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        });
        if well_formed {
            Ok(AmiId(text.to_owned()))
        } else {
            Err(format!(
                "{} is not an AMI id. Accepted: `ami-` and 8 or 17 hexadecimal digits",
                quoted(text)
            ))
        }
    }
}

impl AmiId {
    /// Example id, of an image that does not exist.
    pub(crate) fn example() -> AmiId {
        AmiId("ami-00000000000000001".into())
    }

    /// The id as EC2 writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AmiId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of an AWS account: twelve digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct AccountId(String);

impl FromStr for AccountId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() == 12 && text.bytes().all(|digit| digit.is_ascii_digit()) {
            Ok(AccountId(text.to_owned()))
        } else {
            Err(format!(
                "{} is not an account id. Accepted: twelve digits",
                quoted(text)
            ))
        }
    }
}

impl AccountId {
    /// Example id, of an account that does not exist.
    pub(crate) fn example() -> AccountId {
        AccountId("123456789012".into())
    }

    /// The id as AWS writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked_letter_by_letter() {
        for good in ["ami-0a1b2c3d", "ami-0a1b2c3d4e5f60001"] {
            assert_eq!(good.parse::<AmiId>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "ami-",
            "ami-0a1b2c3",
            "AMI-0a1b2c3d",
            "ami-0A1B2C3D",
            "ami-0a1b2c3d\n",
            "snap-0a1b2c3d",
        ] {
            assert!(bad.parse::<AmiId>().is_err(), "{bad:?}");
        }
        for bad in ["", "12345678901", "1234567890123", "12345678901x"] {
            assert!(bad.parse::<AccountId>().is_err(), "{bad:?}");
        }
    }
}
