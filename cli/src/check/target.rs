//! The AMIs to check, as the command line and Packer write them: `ami-…` or `eu-west-1:ami-…`.

use std::str::FromStr;

use ami_billing_guard::ids::AmiId;

/// An AMI, with its Region if it is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) region: Option<String>,
    pub(super) image: AmiId,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let (region, image) = match text.split_once(':') {
            Some((name, image)) => (Some(region(name)?), image),
            None => (None, text),
        };
        Ok(Target {
            region,
            image: image.parse()?,
        })
    }
}

/// Checks the form of a Region's name. The SDK makes a host name of it, so it must not contain anything else.
fn region(name: &str) -> Result<String, String> {
    let has_only = |part: &str, accepted: fn(&u8) -> bool| {
        !part.is_empty() && part.bytes().all(|byte| accepted(&byte))
    };
    let parts: Vec<&str> = name.split('-').collect();
    let well_formed = match parts.as_slice() {
        [words @ .., number] => {
            words.len() >= 2
                && words.iter().all(|it| has_only(it, u8::is_ascii_lowercase))
                && has_only(number, u8::is_ascii_digit)
        }
        [] => false,
    };
    match well_formed {
        true => Ok(name.to_owned()),
        false => Err(format!(
            "{name:?} is not a Region. Accepted: lower-case words and a number, as in `eu-west-1`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMI: &str = "ami-0a1b2c3d4e5f60001";

    #[test]
    fn an_ami_may_name_its_region() {
        let target: Target = AMI.parse().unwrap();
        assert_eq!(target.region, None);
        for region in [
            "eu-west-1",
            "us-gov-west-1",
            "cn-northwest-1",
            "us-isob-east-1",
            "eusc-de-east-1",
            "ap-southeast-12",
        ] {
            let target: Target = format!("{region}:{AMI}").parse().unwrap();
            assert_eq!(target.region.as_deref(), Some(region));
            assert_eq!(target.image.as_str(), AMI);
        }
    }

    #[test]
    fn what_is_not_a_region_is_refused_by_name() {
        for region in [
            "",
            "eu",
            "eu-west",
            "west-1",
            "eu--1",
            "eu-west-",
            "eu-west-1a",
            "EU-WEST-1",
            "eu_west_1",
            "eu-west-1.evil.example/",
            "eu-west-1 ",
        ] {
            let error = format!("{region}:{AMI}").parse::<Target>().unwrap_err();
            assert!(error.contains("is not a Region. Accepted: "), "{error}");
        }
        let error = "eu-west-1:vol-0a1b2c3d".parse::<Target>().unwrap_err();
        assert!(error.contains("is not an AMI id"), "{error}");
        let error = format!("eu-west-1:{AMI}:x").parse::<Target>().unwrap_err();
        assert!(error.contains("is not an AMI id"), "{error}");
    }
}
