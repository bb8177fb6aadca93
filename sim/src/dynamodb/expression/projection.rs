//! Projection expressions, and the parts of an item that a list of paths names.

use super::path::{Path, Step, check_apart};
use super::{Attributes, Parser, Placeholders, Value};
use crate::refusal::Refusal;

/// Which parts of an item are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Projection(Vec<Path>);

impl Projection {
    pub(in super::super) fn parse(
        text: &str,
        placeholders: &mut Placeholders,
    ) -> Result<Projection, Refusal> {
        Parser::read("ProjectionExpression", text, placeholders, |parser| {
            let paths = parser.list(Path::parse)?;
            check_apart(parser, &paths.iter().collect::<Vec<_>>())?;
            Ok(Projection(paths))
        })
    }

    /// The parts at the ends of these paths.
    pub(in super::super) fn of(paths: impl IntoIterator<Item = Path>) -> Projection {
        Projection(paths.into_iter().collect())
    }

    /// What there is of the parts, each in maps and lists as the item has it; of a list come the elements
    /// that were asked for, in their order, without gaps.
    pub(in super::super) fn apply(&self, item: &Attributes) -> Attributes {
        let paths: Vec<&[Step]> = self.0.iter().map(Path::steps).collect();
        fields(item, &paths)
    }
}

fn fields(map: &Attributes, paths: &[&[Step]]) -> Attributes {
    map.iter()
        .filter_map(|(name, value)| {
            let step = Step::Field(name.clone());
            Some((name.clone(), part(value, &behind(&step, paths))?))
        })
        .collect()
}

/// The part of a value that paths from it name.
fn part(value: &Value, paths: &[&[Step]]) -> Option<Value> {
    if paths.iter().any(|path| path.is_empty()) {
        return Some(value.clone());
    }
    match value {
        Value::M(map) => Some(Value::M(fields(map, paths))).filter(|part| part.size() != Some(0)),
        Value::L(list) => {
            let elements = list
                .iter()
                .enumerate()
                .filter_map(|(index, element)| part(element, &behind(&Step::Index(index), paths)));
            Some(Value::L(elements.collect())).filter(|part| part.size() != Some(0))
        }
        _ => None,
    }
}

/// The rests of those paths that begin with this step.
fn behind<'p>(step: &Step, paths: &[&'p [Step]]) -> Vec<&'p [Step]> {
    paths
        .iter()
        .filter_map(|path| path.strip_prefix(std::slice::from_ref(step)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::value::write_attributes;
    use super::super::testing::{item, placeholders};
    use super::*;

    #[test]
    fn a_projection_shows_the_named_parts_in_their_places() {
        let item = item(json!({
            "id": {"S": "x"},
            "name": {"N": "1"},
            "m": {"M": {"a": {"N": "1"}, "b": {"N": "2"}, "c": {"M": {}}}},
            "l": {"L": [{"N": "0"}, {"N": "1"}, {"M": {"a": {"N": "2"}, "b": {"N": "3"}}}]},
        }));
        for (expression, expected) in [
            ("id, #n", json!({"id": {"S": "x"}, "name": {"N": "1"}})),
            (
                "m.b, m.a",
                json!({"m": {"M": {"a": {"N": "1"}, "b": {"N": "2"}}}}),
            ),
            (
                "l[2].a, l[0]",
                json!({"l": {"L": [{"N": "0"}, {"M": {"a": {"N": "2"}}}]}}),
            ),
            ("m.c", json!({"m": {"M": {"c": {"M": {}}}}})),
            ("m.d, l[7], nothing, id.a", json!({})),
        ] {
            let projection = Projection::parse(expression, &mut placeholders()).unwrap();
            let shown = write_attributes(&projection.apply(&item));
            assert_eq!(json!(shown), expected, "{expression}");
        }
    }

    #[test]
    fn paths_that_overlap_can_not_be_projected() {
        for expression in ["id, id", "m, m.a", "l[0].a, l[0]"] {
            let refusal = Projection::parse(expression, &mut placeholders()).unwrap_err();
            assert!(refusal.message.contains("overlap"), "{expression}");
        }
        assert!(Projection::parse("l[0], l[1], m.a, m.b", &mut placeholders()).is_ok());
    }
}
