//! Document paths: `a.b[3].#c`.

use std::fmt;

use super::{Attributes, Parser, Value};
use crate::refusal::Refusal;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Into a map, or into the item.
    Field(String),
    /// Into a list.
    Index(usize),
}

/// A path into an item: a name, and steps from there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Path(Vec<Step>);

/// There is no map or list in the item where a path needs one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoSuchPlace;

impl Path {
    pub(super) fn parse(parser: &mut Parser) -> Result<Path, Refusal> {
        let mut steps = vec![Step::Field(parser.name()?)];
        loop {
            if parser.takes(".") {
                steps.push(Step::Field(parser.name()?));
            } else if parser.takes("[") {
                let index = parser.peek().and_then(|token| token.parse().ok());
                let Some(index) = index else {
                    return Err(parser.syntax_error());
                };
                parser.take();
                parser.expect("]")?;
                steps.push(Step::Index(index));
            } else {
                return Ok(Path(steps));
            }
        }
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Whether the path is nothing but a name.
    pub(super) fn is_top_level(&self) -> bool {
        self.0.len() == 1
    }

    /// The attribute of the item in which the path ends or that it goes through.
    pub(in super::super) fn attribute(&self) -> &str {
        match self.0.first() {
            Some(Step::Field(name)) => name,
            _ => "",
        }
    }

    /// Whether one path leads to where the other ends.
    pub(super) fn overlaps(&self, other: &Path) -> bool {
        self.0.starts_with(&other.0) || other.0.starts_with(&self.0)
    }

    /// What is at the end of the path.
    pub(super) fn find<'i>(&self, item: &'i Attributes) -> Option<&'i Value> {
        let (_, rest) = self.0.split_first()?;
        rest.iter()
            .try_fold(item.get(self.attribute())?, |value, step| {
                match (value, step) {
                    (Value::M(map), Step::Field(name)) => map.get(name),
                    (Value::L(list), Step::Index(index)) => list.get(*index),
                    _ => None,
                }
            })
    }

    /// Puts a value at the end of the path; in a list, behind the last one if there are not as many.
    pub(super) fn set(&self, item: &mut Attributes, value: Value) -> Result<(), NoSuchPlace> {
        match self.place(item)? {
            Place::In(map, name) => {
                map.insert(name.to_owned(), value);
            }
            Place::Of(list, index) => match list.get_mut(index) {
                Some(old) => *old = value,
                None => list.push(value),
            },
        }
        Ok(())
    }

    /// Takes away what is at the end of the path, if anything is.
    pub(super) fn remove(&self, item: &mut Attributes) -> Result<(), NoSuchPlace> {
        match self.place(item)? {
            Place::In(map, name) => {
                map.remove(name);
            }
            Place::Of(list, index) if index < list.len() => {
                list.remove(index);
            }
            Place::Of(..) => {}
        }
        Ok(())
    }

    /// The map or list in which the path ends.
    fn place<'i, 'p>(&'p self, item: &'i mut Attributes) -> Result<Place<'i, 'p>, NoSuchPlace> {
        let mut place = Place::In(item, self.attribute());
        for step in self.0.iter().skip(1) {
            let value = match place {
                Place::In(map, name) => map.get_mut(name),
                Place::Of(list, index) => list.get_mut(index),
            };
            place = match (value, step) {
                (Some(Value::M(map)), Step::Field(name)) => Place::In(map, name),
                (Some(Value::L(list)), Step::Index(index)) => Place::Of(list, *index),
                _ => return Err(NoSuchPlace),
            };
        }
        Ok(place)
    }
}

/// Where a value is or could be.
#[derive(Debug)]
enum Place<'i, 'p> {
    In(&'i mut Attributes, &'p str),
    Of(&'i mut Vec<Value>, usize),
}

/// As DynamoDB writes paths into its refusals: `[a, b, [3]]`.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<String> = self
            .0
            .iter()
            .map(|step| match step {
                Step::Field(name) => name.clone(),
                Step::Index(index) => format!("[{index}]"),
            })
            .collect();
        write!(f, "[{}]", steps.join(", "))
    }
}

/// Refuses two paths of one expression of which one leads to where the other ends.
pub(super) fn check_apart(parser: &Parser, paths: &[&Path]) -> Result<(), Refusal> {
    for (number, one) in paths.iter().enumerate() {
        if let Some(other) = paths
            .iter()
            .skip(number + 1)
            .find(|other| one.overlaps(other))
        {
            return Err(parser.refusal(format!(
                "Two document paths overlap with each other; must remove or rewrite one of these paths; \
                 path one: {one}, path two: {other}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{item, placeholders};
    use super::*;

    fn path(text: &str) -> Path {
        Parser::read(
            "ConditionExpression",
            text,
            &mut placeholders(),
            Path::parse,
        )
        .unwrap()
    }

    fn example() -> Attributes {
        item(json!({
            "a": {"M": {"name": {"L": [{"S": "x"}, {"M": {"b": {"N": "1"}}}]}}},
        }))
    }

    #[test]
    fn a_path_leads_through_maps_and_lists() {
        let item = example();
        assert_eq!(path("a.#n[1].b").to_string(), "[a, name, [1], b]");
        assert_eq!(path("a.#n[1].b").find(&item), Some(&Value::N(1)));
        for nowhere in ["b", "a.b", "a[0]", "a.#n.b", "a.#n[2]", "a.#n[0].b"] {
            assert_eq!(path(nowhere).find(&item), None, "{nowhere}");
        }
    }

    #[test]
    fn a_value_is_set_where_its_parent_is() {
        let mut item = example();
        for (at, shown) in [
            ("b", "b"),
            ("a.b", "a.b"),
            ("a.#n[0]", "a.#n[0]"),
            ("a.#n[9]", "a.#n[2]"),
            ("a.#n[1].b", "a.#n[1].b"),
        ] {
            path(at).set(&mut item, Value::Bool(true)).unwrap();
            assert_eq!(path(shown).find(&item), Some(&Value::Bool(true)), "{at}");
        }
        for nowhere in ["c.d", "a[0]", "a.#n.b", "a.#n[1].b.c"] {
            let set = path(nowhere).set(&mut item, Value::Null);
            assert_eq!(set, Err(NoSuchPlace), "{nowhere}");
        }
    }

    #[test]
    fn what_is_removed_is_gone_and_what_was_not_there_is_no_error() {
        let mut item = example();
        path("a.#n[0]").remove(&mut item).unwrap();
        assert_eq!(path("a.#n[0].b").find(&item), Some(&Value::N(1)));
        path("a.#n[7]").remove(&mut item).unwrap();
        path("a.b").remove(&mut item).unwrap();
        assert_eq!(path("b.c").remove(&mut item), Err(NoSuchPlace));
        path("a").remove(&mut item).unwrap();
        assert!(item.is_empty());
    }
}
