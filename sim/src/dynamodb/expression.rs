//! What the expressions of DynamoDB share: tokens, document paths, `#names` and `:values`.

mod condition;
mod path;
mod projection;
mod update;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use condition::Condition;
pub(super) use projection::Projection;
pub(super) use update::Update;

use super::invalid;
use super::value::{Attributes, Value};
use crate::refusal::Refusal;

/// "The maximum length of any expression string is 4 KB."
const LONGEST: usize = 4096;

/// "The maximum number of operators or functions in an expression is 300." Here what can be nested counts.
const MOST_OPERATORS: usize = 300;

/// The words that a path can not contain, one a line ("Reserved words in DynamoDB").
const RESERVED_WORDS: &str = include_str!("reserved_words.txt");

/// `ExpressionAttributeNames` and `ExpressionAttributeValues` of a request, and which of them its
/// expressions have used.
#[derive(Debug, Default)]
pub(super) struct Placeholders {
    pub(super) names: BTreeMap<String, String>,
    pub(super) values: Attributes,
    used: BTreeSet<String>,
}

impl Placeholders {
    pub(super) fn new(names: BTreeMap<String, String>, values: Attributes) -> Placeholders {
        Placeholders {
            names,
            values,
            used: BTreeSet::new(),
        }
    }

    /// Refuses the request if there is one that no expression has used.
    pub(super) fn check_all_used(&self) -> Result<(), Refusal> {
        let unused = |what: &str, keys: Vec<&String>| {
            let unused: Vec<&str> = keys
                .into_iter()
                .filter(|key| !self.used.contains(*key))
                .map(String::as_str)
                .collect();
            if unused.is_empty() {
                return Ok(());
            }
            Err(invalid(format!(
                "Value provided in {what} unused in expressions: keys: {{{}}}",
                unused.join(", ")
            )))
        };
        unused("ExpressionAttributeNames", self.names.keys().collect())?;
        unused("ExpressionAttributeValues", self.values.keys().collect())
    }

    fn name(&mut self, placeholder: &str) -> Option<String> {
        let name = self.names.get(placeholder)?;
        self.used.insert(placeholder.to_owned());
        Some(name.clone())
    }

    fn value(&mut self, placeholder: &str) -> Option<Value> {
        let value = self.values.get(placeholder)?;
        self.used.insert(placeholder.to_owned());
        Some(value.clone())
    }
}

/// Reads an expression from left to right.
#[derive(Debug)]
struct Parser<'a> {
    /// The name of the request's parameter, with which each refusal begins.
    parameter: &'static str,
    tokens: Vec<&'a str>,
    next: usize,
    operators: usize,
    placeholders: &'a mut Placeholders,
}

impl<'a> Parser<'a> {
    /// Reads a whole expression with `rule`.
    fn read<T>(
        parameter: &'static str,
        text: &'a str,
        placeholders: &'a mut Placeholders,
        rule: impl FnOnce(&mut Parser) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut parser = Parser {
            parameter,
            tokens: tokens(text),
            next: 0,
            operators: 0,
            placeholders,
        };
        if text.len() > LONGEST {
            return Err(parser.refusal("Expression size has exceeded the maximum allowed size"));
        }
        if parser.tokens.is_empty() {
            return Err(parser.refusal("The expression can not be empty;"));
        }
        let result = rule(&mut parser)?;
        match parser.peek() {
            None => Ok(result),
            Some(_) => Err(parser.syntax_error()),
        }
    }

    fn peek(&self) -> Option<&'a str> {
        self.tokens.get(self.next).copied()
    }

    fn take(&mut self) -> Option<&'a str> {
        let token = self.peek();
        self.next += 1;
        token
    }

    /// Takes the next token if it is this one; keywords may be in lower case.
    fn takes(&mut self, token: &str) -> bool {
        let found = self
            .peek()
            .is_some_and(|next| next.eq_ignore_ascii_case(token));
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), Refusal> {
        if self.takes(token) {
            Ok(())
        } else {
            Err(self.syntax_error())
        }
    }

    /// The name of the function whose call comes next; the parenthesis is taken with it.
    fn takes_function(&mut self) -> Option<&'a str> {
        let name = self.peek().filter(|token| is_word(token))?;
        if self.tokens.get(self.next + 1) != Some(&"(") {
            return None;
        }
        self.next += 2;
        Some(name)
    }

    /// What `rule` reads, once or more often, with commas between.
    fn list<T>(
        &mut self,
        rule: impl Fn(&mut Parser<'a>) -> Result<T, Refusal>,
    ) -> Result<Vec<T>, Refusal> {
        let mut list = vec![rule(self)?];
        while self.takes(",") {
            list.push(rule(self)?);
        }
        Ok(list)
    }

    /// Counts an operator or function, lest a client nest them until the stack ends.
    fn count_operator(&mut self) -> Result<(), Refusal> {
        self.operators += 1;
        if self.operators > MOST_OPERATORS {
            return Err(self.refusal("The expression contains too many operators"));
        }
        Ok(())
    }

    /// The value behind a `:value`, if one comes next.
    fn takes_value(&mut self) -> Result<Option<Value>, Refusal> {
        let Some(placeholder) = self.peek().filter(|token| token.starts_with(':')) else {
            return Ok(None);
        };
        self.next += 1;
        match self.placeholders.value(placeholder) {
            Some(value) => Ok(Some(value)),
            None => Err(self.refusal(format!(
                "An expression attribute value used in expression is not defined; attribute value: \
                 {placeholder}"
            ))),
        }
    }

    /// An attribute's name, plain or as a `#name`.
    fn name(&mut self) -> Result<String, Refusal> {
        let Some(token) = self.peek() else {
            return Err(self.syntax_error());
        };
        if token.starts_with('#') {
            self.next += 1;
            return self.placeholders.name(token).ok_or_else(|| {
                self.refusal(format!(
                    "An expression attribute name used in the document path is not defined; attribute \
                     name: {token}"
                ))
            });
        }
        if !is_word(token) {
            return Err(self.syntax_error());
        }
        if is_reserved(token) {
            return Err(self.refusal(format!(
                "Attribute name is a reserved keyword; reserved keyword: {token}"
            )));
        }
        self.next += 1;
        Ok(token.to_owned())
    }

    fn refusal(&self, what: impl std::fmt::Display) -> Refusal {
        invalid(format!("Invalid {}: {what}", self.parameter))
    }

    /// The next token can not stand where it does.
    fn syntax_error(&self) -> Refusal {
        let token = self.peek().unwrap_or("<EOF>");
        let near = self
            .tokens
            .get(self.next.saturating_sub(1)..self.tokens.len().min(self.next + 2))
            .unwrap_or_default()
            .join(" ");
        self.refusal(format!(
            "Syntax error; token: \"{token}\", near: \"{near}\""
        ))
    }
}

/// Whether a token is a name, a function's name or a keyword.
fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_alphabetic())
}

fn is_reserved(word: &str) -> bool {
    RESERVED_WORDS
        .lines()
        .any(|reserved| reserved.eq_ignore_ascii_case(word))
}

/// Cuts an expression into words, numbers, placeholders and symbols. A character that can not begin a token
/// is one of its own, which no rule takes.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let after_first = rest.get(first.len_utf8()..).unwrap_or_default();
        let more = match first {
            '<' if after_first.starts_with(['>', '=']) => 1,
            '>' if after_first.starts_with('=') => 1,
            '0'..='9' => run(after_first, |c| c.is_ascii_digit()),
            'A'..='Z' | 'a'..='z' | '#' | ':' => run(after_first, in_word),
            _ => 0,
        };
        let (token, behind) = rest.split_at(first.len_utf8() + more);
        tokens.push(token);
        rest = behind.trim_start();
    }
    tokens
}

/// How many bytes long the run of such characters is with which a text begins.
fn run(text: &str, such: impl Fn(char) -> bool) -> usize {
    text.find(|c| !such(c)).unwrap_or(text.len())
}

/// What the unit tests of the expressions share.
#[cfg(test)]
mod testing {
    use serde_json::{Value as Json, json};

    use super::super::value::read_attributes;
    use super::*;

    /// An item from its JSON.
    pub(super) fn item(json: Json) -> Attributes {
        read_attributes(json.as_object().unwrap()).unwrap()
    }

    /// `#n` is the name `name`; `:s` the text "text", `:n` the number 7, and so on by type.
    pub(super) fn placeholders() -> Placeholders {
        let names = BTreeMap::from([("#n".to_owned(), "name".to_owned())]);
        let values = item(json!({
            ":s": {"S": "text"},
            ":n": {"N": "7"},
            ":one": {"N": "1"},
            ":b": {"BOOL": true},
            ":null": {"NULL": true},
            ":l": {"L": [{"S": "text"}]},
            ":m": {"M": {"a": {"N": "1"}}},
            ":ss": {"SS": ["text"]},
        }));
        Placeholders::new(names, values)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{item, placeholders};
    use super::*;
    use serde_json::json;

    #[test]
    fn an_expression_is_cut_into_tokens() {
        assert_eq!(
            tokens("a.b[10]<>:v1 AND#n<=b_2\t>= <(c)+-="),
            [
                "a", ".", "b", "[", "10", "]", "<>", ":v1", "AND", "#n", "<=", "b_2", ">=", "<",
                "(", "c", ")", "+", "-", "="
            ]
        );
        assert_eq!(tokens("a\u{e9}_b"), ["a", "\u{e9}", "_", "b"]);
        assert!(tokens(" \n").is_empty());
    }

    #[test]
    fn every_reserved_word_is_refused_in_any_case_and_other_words_are_not() {
        assert_eq!(RESERVED_WORDS.lines().count(), 573);
        for word in [
            "name", "Status", "TTL", "count", "region", "record", "value",
        ] {
            assert!(is_reserved(word), "{word}");
        }
        for word in ["id", "step", "image", "verdict", "discards"] {
            assert!(!is_reserved(word), "{word}");
        }
    }

    #[test]
    fn unused_names_and_values_are_told() {
        let mut given = placeholders();
        Condition::parse("ConditionExpression", "#n = :s", &mut given).unwrap();
        assert_eq!(
            given.check_all_used().unwrap_err().message,
            "Value provided in ExpressionAttributeValues unused in expressions: keys: {:b, :l, :m, :n, \
             :null, :one, :ss}"
        );
        assert_eq!(
            placeholders().check_all_used().unwrap_err().message,
            "Value provided in ExpressionAttributeNames unused in expressions: keys: {#n}"
        );
        let values = item(json!({":s": {"S": "a"}}));
        let mut given = Placeholders::new(BTreeMap::new(), values);
        Condition::parse("ConditionExpression", "a = :s OR b = :s", &mut given).unwrap();
        assert_eq!(given.check_all_used(), Ok(()));
    }

    #[test]
    fn expressions_that_can_not_be_read_are_refused_in_the_words_of_dynamodb() {
        let nested = format!("{}a = :s", "NOT ".repeat(301));
        let long = format!("a = :s{}", " ".repeat(LONGEST));
        for (expression, expected) in [
            ("", "The expression can not be empty;"),
            ("a = ", "Syntax error; token: \"<EOF>\", near: \"=\""),
            ("a = :s b", "Syntax error; token: \"b\", near: \":s b\""),
            ("a-b = :s", "Syntax error; token: \"-\", near: \"a - b\""),
            ("_a = :s", "Syntax error; token: \"_\", near: \"_ a\""),
            (
                "status = :s",
                "Attribute name is a reserved keyword; reserved keyword: status",
            ),
            (
                "a.name = :s",
                "Attribute name is a reserved keyword; reserved keyword: name",
            ),
            (
                "a = :x",
                "An expression attribute value used in expression is not defined; attribute value: :x",
            ),
            (
                "#x = :s",
                "An expression attribute name used in the document path is not defined; attribute name: #x",
            ),
            (&nested, "The expression contains too many operators"),
            (
                &long,
                "Expression size has exceeded the maximum allowed size",
            ),
        ] {
            let refusal = Condition::parse("FilterExpression", expression, &mut placeholders());
            assert_eq!(
                refusal.unwrap_err().to_string(),
                format!("ValidationException: Invalid FilterExpression: {expected}"),
                "{expression}"
            );
        }
    }
}
