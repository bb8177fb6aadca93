//! Update expressions.

use std::collections::BTreeSet;

use super::path::{NoSuchPlace, Path, check_apart};
use super::{Attributes, Parser, Placeholders, Value};
use crate::dynamodb::invalid;
use crate::dynamodb::value::wrong_type;
use crate::refusal::Refusal;

/// How an item is changed. All operands are those of the item as it was before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Update {
    set: Vec<(Path, Sum)>,
    remove: Vec<Path>,
    add: Vec<(Path, Value)>,
    delete: Vec<(Path, BTreeSet<String>)>,
}

/// `a`, `a + b` or `a - b`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sum {
    Of(Term),
    Plus(Term, Term),
    Minus(Term, Term),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    Path(Path),
    Value(Value),
    IfNotExists(Path, Box<Term>),
    ListAppend(Box<Term>, Box<Term>),
}

impl Update {
    pub(in super::super) fn parse(
        text: &str,
        placeholders: &mut Placeholders,
    ) -> Result<Update, Refusal> {
        Parser::read("UpdateExpression", text, placeholders, |parser| {
            let mut update = Update::default();
            while parser.peek().is_some() {
                section(parser, &mut update)?;
            }
            check_apart(parser, &update.paths().collect::<Vec<_>>())?;
            Ok(update)
        })
    }

    /// All that is changed.
    pub(in super::super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let set = self.set.iter().map(|(path, _)| path);
        let add = self.add.iter().map(|(path, _)| path);
        let delete = self.delete.iter().map(|(path, _)| path);
        set.chain(&self.remove).chain(add).chain(delete)
    }

    /// The item after the update.
    ///
    /// # Errors
    /// If an operand or a place is not there, or an operand has the wrong type.
    pub(in super::super) fn apply(&self, before: &Attributes) -> Result<Attributes, Refusal> {
        let mut item = before.clone();
        // Elements that are put behind the end of a list come in the order of their indexes.
        let mut set: Vec<&(Path, Sum)> = self.set.iter().collect();
        set.sort_by_key(|(path, _)| path);
        for (path, sum) in set {
            path.set(&mut item, sum.value(before)?).map_err(no_place)?;
        }
        for (path, value) in &self.add {
            let value = added(path.find(before), value)?;
            path.set(&mut item, value).map_err(no_place)?;
        }
        for (path, members) in &self.delete {
            match path.find(before) {
                None => continue,
                Some(Value::Ss(set)) => {
                    let left: BTreeSet<String> = set.difference(members).cloned().collect();
                    // There is no empty set.
                    if left.is_empty() {
                        path.remove(&mut item).map_err(no_place)?;
                    } else {
                        path.set(&mut item, Value::Ss(left)).map_err(no_place)?;
                    }
                }
                Some(_) => return Err(wrong_type()),
            }
        }
        // From the last one on, since removing an element changes the indexes of those behind it.
        let mut remove: Vec<&Path> = self.remove.iter().collect();
        remove.sort();
        for path in remove.into_iter().rev() {
            path.remove(&mut item).map_err(no_place)?;
        }
        Ok(item)
    }
}

impl Sum {
    fn value(&self, item: &Attributes) -> Result<Value, Refusal> {
        match self {
            Sum::Of(term) => term.value(item),
            Sum::Plus(one, other) => one.value(item)?.sum(&other.value(item)?, false),
            Sum::Minus(one, other) => one.value(item)?.sum(&other.value(item)?, true),
        }
    }
}

impl Term {
    fn value(&self, item: &Attributes) -> Result<Value, Refusal> {
        match self {
            Term::Path(path) => path.find(item).cloned().ok_or_else(|| {
                invalid(
                    "The provided expression refers to an attribute that does not exist in the item",
                )
            }),
            Term::Value(value) => Ok(value.clone()),
            Term::IfNotExists(path, other) => match path.find(item) {
                Some(value) => Ok(value.clone()),
                None => other.value(item),
            },
            Term::ListAppend(one, other) => match (one.value(item)?, other.value(item)?) {
                (Value::L(mut list), Value::L(more)) => {
                    list.extend(more);
                    Ok(Value::L(list))
                }
                _ => Err(wrong_type()),
            },
        }
    }
}

fn no_place(_: NoSuchPlace) -> Refusal {
    invalid("The document path provided in the update expression is invalid for update")
}

/// What `ADD` makes of a value, or of none.
fn added(old: Option<&Value>, value: &Value) -> Result<Value, Refusal> {
    match (old, value) {
        (None, value) => Ok(value.clone()),
        (Some(Value::Ss(set)), Value::Ss(members)) => {
            Ok(Value::Ss(set.union(members).cloned().collect()))
        }
        (Some(old), value) => old.sum(value, false),
    }
}

/// One of `SET …`, `REMOVE …`, `ADD …`, `DELETE …`.
fn section(parser: &mut Parser, update: &mut Update) -> Result<(), Refusal> {
    let once = |parser: &Parser, name: &str, is_first: bool| {
        if is_first {
            return Ok(());
        }
        Err(parser.refusal(format!(
            "The \"{name}\" section can only be used once in an update expression;"
        )))
    };
    if parser.takes("SET") {
        once(parser, "SET", update.set.is_empty())?;
        update.set = parser.list(|parser| {
            let path = Path::parse(parser)?;
            parser.expect("=")?;
            Ok((path, sum(parser)?))
        })?;
    } else if parser.takes("REMOVE") {
        once(parser, "REMOVE", update.remove.is_empty())?;
        update.remove = parser.list(Path::parse)?;
    } else if parser.takes("ADD") {
        once(parser, "ADD", update.add.is_empty())?;
        update.add = parser.list(|parser| {
            let (path, value) = top_level(parser, "ADD")?;
            match value {
                Value::N(_) | Value::Ss(_) => Ok((path, value)),
                other => Err(wrong_operand(parser, "ADD", &other)),
            }
        })?;
    } else if parser.takes("DELETE") {
        once(parser, "DELETE", update.delete.is_empty())?;
        update.delete = parser.list(|parser| {
            let (path, value) = top_level(parser, "DELETE")?;
            match value {
                Value::Ss(members) => Ok((path, members)),
                other => Err(wrong_operand(parser, "DELETE", &other)),
            }
        })?;
    } else {
        return Err(parser.syntax_error());
    }
    Ok(())
}

/// A path and a value. "ADD can only be used on top-level attributes, not nested attributes", says the
/// reference of UpdateItem, and the same of DELETE; whether DynamoDB is that strict is not known.
fn top_level(parser: &mut Parser, section: &str) -> Result<(Path, Value), Refusal> {
    let path = Path::parse(parser)?;
    if !path.is_top_level() {
        return Err(parser.refusal(format!(
            "{section} is documented for top-level attributes only, and simulated only so; path: {path}"
        )));
    }
    match parser.takes_value()? {
        Some(value) => Ok((path, value)),
        None => Err(parser.syntax_error()),
    }
}

fn sum(parser: &mut Parser) -> Result<Sum, Refusal> {
    let one = term(parser)?;
    let (operator, of): (_, fn(Term, Term) -> Sum) = if parser.takes("+") {
        ("+", Sum::Plus)
    } else if parser.takes("-") {
        ("-", Sum::Minus)
    } else {
        return Ok(Sum::Of(one));
    };
    let other = term(parser)?;
    for term in [&one, &other] {
        match term {
            Term::Value(value) if !matches!(value, Value::N(_)) => {
                return Err(wrong_operand(parser, operator, value));
            }
            _ => {}
        }
    }
    Ok(of(one, other))
}

fn term(parser: &mut Parser) -> Result<Term, Refusal> {
    if let Some(value) = parser.takes_value()? {
        return Ok(Term::Value(value));
    }
    let term = match parser.takes_function() {
        None => return Path::parse(parser).map(Term::Path),
        Some("if_not_exists") => {
            parser.count_operator()?;
            let path = Path::parse(parser)?;
            parser.expect(",")?;
            Term::IfNotExists(path, Box::new(term(parser)?))
        }
        Some("list_append") => {
            parser.count_operator()?;
            let one = list(parser)?;
            parser.expect(",")?;
            Term::ListAppend(Box::new(one), Box::new(list(parser)?))
        }
        Some(other) => {
            return Err(parser.refusal(format!("Invalid function name; function: {other}")));
        }
    };
    parser.expect(")")?;
    Ok(term)
}

/// An operand of `list_append`.
fn list(parser: &mut Parser) -> Result<Term, Refusal> {
    match term(parser)? {
        Term::Value(value) if !matches!(value, Value::L(_)) => {
            Err(wrong_operand(parser, "list_append", &value))
        }
        term => Ok(term),
    }
}

/// A value of the request is of a type that the operator or function does not take.
fn wrong_operand(parser: &Parser, operator: &str, value: &Value) -> Refusal {
    parser.refusal(format!(
        "Incorrect operand type for operator or function; operator or function: {operator}, operand type: \
         {}",
        value.type_name()
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::super::super::value::write_attributes;
    use super::super::testing::{item, placeholders};
    use super::*;

    fn updated(expression: &str, before: Json) -> Result<Json, String> {
        Update::parse(expression, &mut placeholders())
            .and_then(|update| update.apply(&item(before)))
            .map(|after| json!(write_attributes(&after)))
            .map_err(|refusal| refusal.message)
    }

    #[test]
    fn updates_do_what_the_documentation_says() {
        for (expression, before, after) in [
            ("SET a = :s", json!({}), json!({"a": {"S": "text"}})),
            (
                "set #n = :n, a = b",
                json!({"a": {"S": "a"}, "b": {"S": "b"}}),
                json!({"a": {"S": "b"}, "b": {"S": "b"}, "name": {"N": "7"}}),
            ),
            (
                "SET a = b, b = a",
                json!({"a": {"N": "1"}, "b": {"N": "2"}}),
                json!({"a": {"N": "2"}, "b": {"N": "1"}}),
            ),
            (
                "SET a = if_not_exists(a, :one) + :n",
                json!({}),
                json!({"a": {"N": "8"}}),
            ),
            (
                "SET a = if_not_exists(a, :one) - :n",
                json!({"a": {"N": "3"}}),
                json!({"a": {"N": "-4"}}),
            ),
            (
                "SET l = list_append(if_not_exists(l, :l), :l)",
                json!({}),
                json!({"l": {"L": [{"S": "text"}, {"S": "text"}]}}),
            ),
            (
                "SET m.b = m.a + :one, l[9] = :n, l[5] = :one, l[0] = :s",
                json!({"m": {"M": {"a": {"N": "1"}}}, "l": {"L": [{"NULL": true}]}}),
                json!({
                    "m": {"M": {"a": {"N": "1"}, "b": {"N": "2"}}},
                    "l": {"L": [{"S": "text"}, {"N": "1"}, {"N": "7"}]},
                }),
            ),
            (
                "REMOVE a, l[0], l[2], nothing, m.a",
                json!({
                    "a": {"N": "1"},
                    "l": {"L": [{"N": "0"}, {"N": "1"}, {"N": "2"}]},
                    "m": {"M": {"a": {"N": "1"}}},
                }),
                json!({"l": {"L": [{"N": "1"}]}, "m": {"M": {}}}),
            ),
            ("ADD a :n", json!({}), json!({"a": {"N": "7"}})),
            (
                "ADD a :n, ss :ss",
                json!({"a": {"N": "-7"}, "ss": {"SS": ["more"]}}),
                json!({"a": {"N": "0"}, "ss": {"SS": ["more", "text"]}}),
            ),
            ("DELETE ss :ss", json!({"ss": {"SS": ["text"]}}), json!({})),
            (
                "DELETE ss :ss, nothing :ss",
                json!({"ss": {"SS": ["more", "text"]}}),
                json!({"ss": {"SS": ["more"]}}),
            ),
            (
                "REMOVE a ADD b :one SET c = a",
                json!({"a": {"N": "5"}}),
                json!({"b": {"N": "1"}, "c": {"N": "5"}}),
            ),
        ] {
            assert_eq!(updated(expression, before), Ok(after), "{expression}");
        }
    }

    #[test]
    fn updates_that_an_item_does_not_allow_are_refused() {
        let no_attribute =
            "The provided expression refers to an attribute that does not exist in the item";
        let no_place = "The document path provided in the update expression is invalid for update";
        let wrong = "An operand in the update expression has an incorrect data type";
        for (expression, expected) in [
            ("SET b = nothing", no_attribute),
            ("SET b = nothing + :one", no_attribute),
            ("SET b = a + :one", wrong),
            ("SET b = list_append(a, :l)", wrong),
            ("SET nothing.a = :s", no_place),
            ("SET a.b = :s", no_place),
            ("REMOVE nothing.a", no_place),
            ("ADD a :one", wrong),
            ("DELETE a :ss", wrong),
        ] {
            let refusal = updated(expression, json!({"a": {"S": "text"}})).unwrap_err();
            assert_eq!(refusal, expected, "{expression}");
        }
    }

    #[test]
    fn update_expressions_that_can_not_be_are_refused() {
        for (expression, expected) in [
            ("a = :s", "Syntax error; token: \"a\", near: \"a =\""),
            ("SET a :s", "Syntax error; token: \":s\", near: \"a :s\""),
            ("SET a = :s,", "Syntax error; token: \"<EOF>\", near: \",\""),
            (
                "SET a = :s b = :n",
                "Syntax error; token: \"b\", near: \":s b =\"",
            ),
            ("ADD a b", "Syntax error; token: \"b\", near: \"a b\""),
            (
                "SET a = :s SET b = :s",
                "The \"SET\" section can only be used once in an update expression;",
            ),
            (
                "SET a = :s REMOVE a",
                "Two document paths overlap with each other; must remove or rewrite one of these paths; \
                 path one: [a], path two: [a]",
            ),
            (
                "SET m = :m, m.a = :one",
                "Two document paths overlap with each other; must remove or rewrite one of these paths; \
                 path one: [m], path two: [m, a]",
            ),
            ("SET a = size(b)", "Invalid function name; function: size"),
            (
                "SET a = b + :s",
                "Incorrect operand type for operator or function; operator or function: +, operand type: \
                 S",
            ),
            (
                "SET a = list_append(a, :s)",
                "Incorrect operand type for operator or function; operator or function: list_append, \
                 operand type: S",
            ),
            (
                "ADD a :s",
                "Incorrect operand type for operator or function; operator or function: ADD, operand \
                 type: S",
            ),
            (
                "DELETE a :n",
                "Incorrect operand type for operator or function; operator or function: DELETE, operand \
                 type: N",
            ),
            (
                "SET status = :s",
                "Attribute name is a reserved keyword; reserved keyword: status",
            ),
            (
                "ADD m.a :one",
                "ADD is documented for top-level attributes only, and simulated only so; path: [m, a]",
            ),
        ] {
            assert_eq!(
                updated(expression, json!({})),
                Err(format!("Invalid UpdateExpression: {expected}")),
                "{expression}"
            );
        }
    }
}
