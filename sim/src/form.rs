//! Reads the flat form parameters of a request: `ImageId.1`, `Filter.1.Value.2`, …

use std::collections::{BTreeMap, BTreeSet};

use crate::refusal::Refusal;

/// The parameters of one request, or those with one prefix.
#[derive(Debug, Clone)]
pub(crate) struct Form<'a> {
    params: &'a BTreeMap<String, String>,
    prefix: String,
}

impl<'a> Form<'a> {
    pub(crate) fn new(params: &'a BTreeMap<String, String>) -> Form<'a> {
        Form {
            params,
            prefix: String::new(),
        }
    }

    /// The parameter of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.params
            .get(&format!("{}{name}", self.prefix))
            .map(String::as_str)
    }

    /// The parameter of this name. A request without it is refused, with EC2's error. SNS's error differs.
    pub(crate) fn required(&self, name: &str) -> Result<&'a str, Refusal> {
        self.get(name).ok_or_else(|| {
            Refusal::new(
                "MissingParameter",
                format!(
                    "The request must contain the parameter {}{name}",
                    self.prefix
                ),
            )
        })
    }

    /// A boolean; false if absent.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        Ok(self.parse(name)?.unwrap_or(false))
    }

    /// A number or a boolean.
    pub(crate) fn parse<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(Refusal::invalid(format!(
                "Value ({text}) for parameter {}{name} is invalid.",
                self.prefix
            ))),
        }
    }

    /// The values of `NAME.1`, `NAME.2`, … in numeric order.
    pub(crate) fn list(&self, name: &str) -> Vec<&'a str> {
        self.numbers(name)
            .into_iter()
            .filter_map(|number| self.get(&format!("{name}.{number}")))
            .collect()
    }

    /// The structures `NAME.1.…`, `NAME.2.…` in numeric order.
    pub(crate) fn structures(&self, name: &str) -> Vec<Form<'a>> {
        self.numbers(name)
            .into_iter()
            .map(|number| self.structure(&format!("{name}.{number}")))
            .collect()
    }

    /// The structure `NAME.…`.
    pub(crate) fn structure(&self, name: &str) -> Form<'a> {
        Form {
            params: self.params,
            prefix: format!("{}{name}.", self.prefix),
        }
    }

    fn numbers(&self, name: &str) -> BTreeSet<u32> {
        let prefix = format!("{}{name}.", self.prefix);
        self.params
            .range(prefix.clone()..)
            .map_while(|(key, _)| key.strip_prefix(&prefix))
            .filter_map(|rest| rest.split('.').next()?.parse().ok())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect()
    }

    #[test]
    fn list_items_come_in_the_order_of_their_numbers() {
        let params = params(&[
            ("Id.10", "j"),
            ("Id.2", "b"),
            ("Id.1", "a"),
            ("Idx.1", "no"),
        ]);
        assert_eq!(Form::new(&params).list("Id"), ["a", "b", "j"]);
    }

    #[test]
    fn structures_are_read_below_their_prefix() {
        let params = params(&[
            ("Filter.1.Name", "state"),
            ("Filter.1.Value.1", "available"),
            ("Filter.2.Name", "tag-key"),
        ]);
        let filters = Form::new(&params).structures("Filter");
        assert_eq!(filters.len(), 2);
        assert_eq!(filters[0].get("Name"), Some("state"));
        assert_eq!(filters[0].list("Value"), ["available"]);
        assert_eq!(filters[1].list("Value"), Vec::<&str>::new());
    }

    #[test]
    fn a_value_that_does_not_parse_is_refused_by_its_full_name() {
        let params = params(&[("Ebs.VolumeSize", "big")]);
        let refusal = Form::new(&params)
            .structure("Ebs")
            .parse::<u32>("VolumeSize")
            .unwrap_err();
        assert_eq!(refusal.code, "InvalidParameterValue");
        assert!(refusal.message.contains("Ebs.VolumeSize"));
    }
}
