//! Condition and filter expressions.

use super::path::Path;
use super::{Attributes, Parser, Placeholders, Value};
use crate::refusal::Refusal;

/// What has to hold of an item. Of an item that is not there nothing exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Condition {
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
    Compare(Operand, Comparator, Operand),
    Between(Operand, Operand, Operand),
    In(Operand, Vec<Operand>),
    Exists(Path),
    BeginsWith(Operand, Operand),
    Contains(Operand, Operand),
}

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Operand {
    Path(Path),
    Value(Value),
    Size(Path),
}

/// How it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Comparator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Condition {
    /// Reads an expression; `parameter` names it in refusals.
    pub(in super::super) fn parse(
        parameter: &'static str,
        text: &str,
        placeholders: &mut Placeholders,
    ) -> Result<Condition, Refusal> {
        Parser::read(parameter, text, placeholders, any)
    }

    /// Whether it holds of an item.
    pub(in super::super) fn holds(&self, item: &Attributes) -> bool {
        match self {
            Condition::And(one, other) => one.holds(item) && other.holds(item),
            Condition::Or(one, other) => one.holds(item) || other.holds(item),
            Condition::Not(inner) => !inner.holds(item),
            Condition::Compare(one, comparator, other) => {
                compare(one.value(item), *comparator, other.value(item))
            }
            Condition::Between(operand, least, most) => {
                let value = operand.value(item);
                compare(value.clone(), Comparator::GreaterOrEqual, least.value(item))
                    && compare(value, Comparator::LessOrEqual, most.value(item))
            }
            Condition::In(operand, list) => {
                let value = operand.value(item);
                list.iter()
                    .any(|each| compare(value.clone(), Comparator::Equal, each.value(item)))
            }
            Condition::Exists(path) => path.find(item).is_some(),
            Condition::BeginsWith(operand, prefix) => {
                match (operand.value(item), prefix.value(item)) {
                    (Some(Value::S(text)), Some(Value::S(prefix))) => text.starts_with(&prefix),
                    _ => false,
                }
            }
            Condition::Contains(operand, part) => match (operand.value(item), part.value(item)) {
                (Some(Value::S(text)), Some(Value::S(part))) => text.contains(&part),
                (Some(Value::Ss(set)), Some(Value::S(member))) => set.contains(&member),
                (Some(Value::L(list)), Some(element)) => list.contains(&element),
                _ => false,
            },
        }
    }
}

impl Operand {
    fn value(&self, item: &Attributes) -> Option<Value> {
        match self {
            Operand::Path(path) => path.find(item).cloned(),
            Operand::Value(value) => Some(value.clone()),
            Operand::Size(path) => {
                let size = path.find(item)?.size()?;
                i128::try_from(size).ok().map(Value::N)
            }
        }
    }

    /// The type that it has whatever the item.
    fn type_name(&self) -> Option<&'static str> {
        match self {
            Operand::Path(_) => None,
            Operand::Value(value) => Some(value.type_name()),
            Operand::Size(_) => Some("N"),
        }
    }
}

/// What is not there is unequal to everything, itself among it, and there is no other comparison with it;
/// the same goes for values of two types.
fn compare(one: Option<Value>, comparator: Comparator, other: Option<Value>) -> bool {
    let (Some(one), Some(other)) = (one, other) else {
        return comparator == Comparator::Unequal;
    };
    let order = one.order(&other);
    match comparator {
        Comparator::Equal => one == other,
        Comparator::Unequal => one != other,
        Comparator::Less => order.is_some_and(|order| order.is_lt()),
        Comparator::LessOrEqual => order.is_some_and(|order| order.is_le()),
        Comparator::Greater => order.is_some_and(|order| order.is_gt()),
        Comparator::GreaterOrEqual => order.is_some_and(|order| order.is_ge()),
    }
}

/// `a OR b`: binds least.
fn any(parser: &mut Parser) -> Result<Condition, Refusal> {
    let mut condition = all(parser)?;
    while parser.takes("OR") {
        parser.count_operator()?;
        condition = Condition::Or(Box::new(condition), Box::new(all(parser)?));
    }
    Ok(condition)
}

/// `a AND b`.
fn all(parser: &mut Parser) -> Result<Condition, Refusal> {
    let mut condition = single(parser)?;
    while parser.takes("AND") {
        parser.count_operator()?;
        condition = Condition::And(Box::new(condition), Box::new(single(parser)?));
    }
    Ok(condition)
}

/// `NOT a`, `(a)`, a function or a comparison.
fn single(parser: &mut Parser) -> Result<Condition, Refusal> {
    if parser.takes("NOT") {
        parser.count_operator()?;
        return Ok(Condition::Not(Box::new(single(parser)?)));
    }
    if parser.peek() == Some("(") {
        return group(parser);
    }
    match function(parser)? {
        Some(condition) => Ok(condition),
        None => comparison(parser),
    }
}

/// `(a)`; DynamoDB refuses `((a))`.
fn group(parser: &mut Parser) -> Result<Condition, Refusal> {
    parser.count_operator()?;
    parser.expect("(")?;
    let inner_from = parser.next;
    let condition = any(parser)?;
    let inner_to = parser.next;
    parser.expect(")")?;
    let inner = parser.tokens.get(inner_from..inner_to).unwrap_or_default();
    if is_group(inner) {
        return Err(parser.refusal("The expression has redundant parentheses;"));
    }
    Ok(condition)
}

/// Whether the tokens are in one pair of parentheses.
fn is_group(tokens: &[&str]) -> bool {
    let mut depth = 0_usize;
    for (number, token) in tokens.iter().enumerate() {
        match *token {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return number > 0 && number + 1 == tokens.len();
        }
    }
    false
}

/// A function that is a condition by itself, if one comes next.
fn function(parser: &mut Parser) -> Result<Option<Condition>, Refusal> {
    let before = parser.next;
    let Some(name) = parser.takes_function() else {
        return Ok(None);
    };
    parser.count_operator()?;
    let condition = match name {
        "attribute_exists" => Condition::Exists(Path::parse(parser)?),
        "attribute_not_exists" => Condition::Not(Box::new(Condition::Exists(Path::parse(parser)?))),
        "begins_with" | "contains" => {
            let first = operand(parser)?;
            parser.expect(",")?;
            let second = operand(parser)?;
            check_distinct(parser, name, &first, &second)?;
            if name == "contains" {
                Condition::Contains(first, second)
            } else {
                check_types(parser, name, &["S"], &[&first, &second])?;
                Condition::BeginsWith(first, second)
            }
        }
        "size" => {
            parser.next = before;
            return Ok(None);
        }
        "attribute_type" => return Err(parser.refusal("attribute_type is not simulated")),
        _ => return Err(parser.refusal(format!("Invalid function name; function: {name}"))),
    };
    parser.expect(")")?;
    Ok(Some(condition))
}

/// `a = b`, `a BETWEEN b AND c` or `a IN (b, c)`.
fn comparison(parser: &mut Parser) -> Result<Condition, Refusal> {
    let one = operand(parser)?;
    parser.count_operator()?;
    if parser.takes("BETWEEN") {
        let least = operand(parser)?;
        parser.expect("AND")?;
        let most = operand(parser)?;
        check_types(parser, "BETWEEN", &["S", "N"], &[&one, &least, &most])?;
        check_bounds(parser, &least, &most)?;
        return Ok(Condition::Between(one, least, most));
    }
    if parser.takes("IN") {
        parser.expect("(")?;
        let list = parser.list(operand)?;
        parser.expect(")")?;
        return Ok(Condition::In(one, list));
    }
    let (symbol, comparator) = match parser.peek() {
        Some("=") => ("=", Comparator::Equal),
        Some("<>") => ("<>", Comparator::Unequal),
        Some("<") => ("<", Comparator::Less),
        Some("<=") => ("<=", Comparator::LessOrEqual),
        Some(">") => (">", Comparator::Greater),
        Some(">=") => (">=", Comparator::GreaterOrEqual),
        _ => return Err(parser.syntax_error()),
    };
    parser.take();
    let other = operand(parser)?;
    check_distinct(parser, symbol, &one, &other)?;
    if !matches!(comparator, Comparator::Equal | Comparator::Unequal) {
        check_types(parser, symbol, &["S", "N"], &[&one, &other])?;
    }
    Ok(Condition::Compare(one, comparator, other))
}

fn operand(parser: &mut Parser) -> Result<Operand, Refusal> {
    if let Some(value) = parser.takes_value()? {
        return Ok(Operand::Value(value));
    }
    match parser.takes_function() {
        None => Path::parse(parser).map(Operand::Path),
        Some("size") => {
            parser.count_operator()?;
            let path = Path::parse(parser)?;
            parser.expect(")")?;
            Ok(Operand::Size(path))
        }
        Some(other) => Err(parser.refusal(format!(
            "The function is not allowed to be used this way in an expression; function: {other}"
        ))),
    }
}

/// Refuses an attribute that is compared with itself.
fn check_distinct(
    parser: &Parser,
    operator: &str,
    one: &Operand,
    other: &Operand,
) -> Result<(), Refusal> {
    match (one, other) {
        (Operand::Path(path), Operand::Path(same)) if path == same => Err(parser.refusal(format!(
            "The first operand must be distinct from the remaining operands for this operator or \
                 function; operator: {operator}, first operand: {path}"
        ))),
        _ => Ok(()),
    }
}

/// Refuses operands whose types the operator can not take, as far as the types are known by now.
fn check_types(
    parser: &Parser,
    operator: &str,
    allowed: &[&str],
    operands: &[&Operand],
) -> Result<(), Refusal> {
    let wrong = operands
        .iter()
        .filter_map(|operand| operand.type_name())
        .find(|name| !allowed.contains(name));
    match wrong {
        None => Ok(()),
        Some(name) => Err(parser.refusal(format!(
            "Incorrect operand type for operator or function; operator or function: {operator}, operand \
             type: {name}"
        ))),
    }
}

/// Refuses bounds of two types, and such as no value is between.
fn check_bounds(parser: &Parser, least: &Operand, most: &Operand) -> Result<(), Refusal> {
    let (Operand::Value(least), Operand::Value(most)) = (least, most) else {
        return Ok(());
    };
    let rule = match least.order(most) {
        None => "requires same data type for lower and upper bounds",
        Some(order) if order.is_gt() => {
            "requires upper bound to be greater than or equal to lower bound"
        }
        Some(_) => return Ok(()),
    };
    let shown = |value: &Value| match value {
        Value::S(text) => format!("AttributeValue: {{S:{text}}}"),
        Value::N(number) => format!("AttributeValue: {{N:{number}}}"),
        _ => String::new(),
    };
    Err(parser.refusal(format!(
        "The BETWEEN operator {rule}; lower bound operand: {}, upper bound operand: {}",
        shown(least),
        shown(most)
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{item, placeholders};
    use super::*;

    fn example() -> Attributes {
        item(json!({
            "id": {"S": "text, and more"},
            "name": {"S": "text"},
            "n": {"N": "7"},
            "big": {"N": "10"},
            "b": {"BOOL": true},
            "z": {"NULL": true},
            "ss": {"SS": ["text", "more"]},
            "l": {"L": [{"S": "text"}, {"N": "7"}]},
            "m": {"M": {"a": {"N": "1"}}},
        }))
    }

    fn holds(expression: &str, item: &Attributes) -> bool {
        Condition::parse("ConditionExpression", expression, &mut placeholders())
            .unwrap_or_else(|refusal| panic!("{expression}: {refusal}"))
            .holds(item)
    }

    #[test]
    fn conditions_hold_as_the_documentation_says() {
        for (expression, expected) in [
            ("attribute_exists(id)", true),
            ("attribute_exists(m.a)", true),
            ("attribute_exists(l[1])", true),
            ("attribute_exists(l[2])", false),
            ("attribute_exists(z)", true),
            ("attribute_not_exists(nothing)", true),
            ("attribute_not_exists(id)", false),
            ("begins_with(id, :s)", true),
            ("begins_with(#n, id)", false),
            ("begins_with(n, :s)", false),
            ("begins_with(nothing, :s)", false),
            ("contains(id, :s)", true),
            ("contains(ss, :s)", true),
            ("contains(ss, :n)", false),
            ("contains(l, :s)", true),
            ("contains(l, :n)", true),
            ("contains(m, :s)", false),
            ("size(id) = :n", false),
            ("size(l) < :n", true),
            ("size(ss) > :one", true),
            ("size(m) = m.a", true),
            ("size(n) = :n", false),
            ("size(nothing) = :n", false),
            ("#n = :s", true),
            ("l[0] = #n", true),
            ("n = :s", false),
            ("n <> :s", true),
            ("nothing = :s", false),
            ("nothing <> :s", true),
            ("nothing <> nowhere", true),
            ("nothing < :s", false),
            ("nothing >= :s", false),
            ("b = :b", true),
            ("z = :null", true),
            ("m = :m", true),
            ("ss = :ss", false),
            ("l = :l", false),
            // As numbers, not as texts.
            ("big > :n", true),
            ("n <= :n", true),
            ("n < :n", false),
            ("id > #n", true),
            ("n BETWEEN :one AND big", true),
            ("big BETWEEN :one AND :n", false),
            ("n IN (:s, :n)", true),
            ("nothing IN (:s, :n)", false),
            ("NOT attribute_exists(id) OR n = :n", true),
            ("NOT (attribute_exists(id) OR n = :n)", false),
            ("n = :one OR n = :n AND b = :b", true),
            ("(n = :one OR n = :n) AND NOT b = :b", false),
            ("NOT NOT n = :n", true),
            ("n between :one and :n and not (b <> :b) or n = :one", true),
        ] {
            assert_eq!(holds(expression, &example()), expected, "{expression}");
        }
    }

    #[test]
    fn of_an_item_that_is_not_there_nothing_exists() {
        let nothing = Attributes::new();
        assert!(holds("attribute_not_exists(id)", &nothing));
        assert!(holds("id <> :s", &nothing));
        assert!(!holds("n < :n", &nothing));
        assert!(holds("attribute_not_exists(n) OR n < :n", &nothing));
    }

    #[test]
    fn conditions_that_can_not_be_are_refused() {
        for (expression, expected) in [
            ("((n = :n))", "The expression has redundant parentheses;"),
            (
                "b = :b AND ((n = :n OR n = :one))",
                "The expression has redundant parentheses;",
            ),
            ("(n = :n", "Syntax error; token: \"<EOF>\", near: \":n\""),
            ("n = :n)", "Syntax error; token: \")\", near: \":n )\""),
            ("n :n", "Syntax error; token: \":n\", near: \"n :n\""),
            (
                "n = :n AND",
                "Syntax error; token: \"<EOF>\", near: \"AND\"",
            ),
            ("exists(n)", "Invalid function name; function: exists"),
            (
                "n = begins_with(id, :s)",
                "The function is not allowed to be used this way in an expression; function: begins_with",
            ),
            (
                "begins_with(id, :n)",
                "Incorrect operand type for operator or function; operator or function: begins_with, \
                 operand type: N",
            ),
            (
                "b < :b",
                "Incorrect operand type for operator or function; operator or function: <, operand type: \
                 BOOL",
            ),
            (
                "n BETWEEN :n AND :one",
                "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; \
                 lower bound operand: AttributeValue: {N:7}, upper bound operand: AttributeValue: {N:1}",
            ),
            (
                "n BETWEEN :n AND :s",
                "The BETWEEN operator requires same data type for lower and upper bounds; lower bound \
                 operand: AttributeValue: {N:7}, upper bound operand: AttributeValue: {S:text}",
            ),
            (
                "#n = #n",
                "The first operand must be distinct from the remaining operands for this operator or \
                 function; operator: =, first operand: [name]",
            ),
        ] {
            let refusal = Condition::parse("ConditionExpression", expression, &mut placeholders())
                .unwrap_err();
            assert_eq!(
                refusal.message,
                format!("Invalid ConditionExpression: {expected}"),
                "{expression}"
            );
        }
        assert!(holds("(b = :b) AND (n = :n)", &example()));
    }

    /// Numbers that look random and are the same in every run.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % sides
        }
    }

    /// A condition as text, whether it holds, and how strongly its outermost operator binds.
    struct Expected {
        text: String,
        holds: bool,
        strength: u8,
    }

    impl Expected {
        /// The text as a part of a condition whose operator binds with this strength.
        fn within(&self, strength: u8) -> String {
            if self.strength < strength {
                format!("({})", self.text)
            } else {
                self.text.clone()
            }
        }
    }

    /// A random comparison of what the attributes `a` to `d` of an item are: a number or nothing.
    fn random_leaf(dice: &mut Dice, numbers: &[Option<i128>]) -> Expected {
        let index = dice.roll(numbers.len() as u64) as usize;
        let (name, number) = (["a", "b", "c", "d"][index], numbers[index]);
        let seven = |test: fn(i128) -> bool| number.is_some_and(test);
        let (text, holds) = match dice.roll(7) {
            0 => (format!("attribute_exists({name})"), number.is_some()),
            1 => (format!("attribute_not_exists({name})"), number.is_none()),
            2 => (format!("{name} = :n"), seven(|n| n == 7)),
            3 => (format!("{name} <> :n"), number != Some(7)),
            4 => (format!("{name} >= :n"), seven(|n| n >= 7)),
            5 => (
                format!("{name} BETWEEN :one AND :n"),
                seven(|n| (1..=7).contains(&n)),
            ),
            _ => (
                format!("{name} IN (:one, :n, :s)"),
                seven(|n| n == 1 || n == 7),
            ),
        };
        Expected {
            text,
            holds,
            strength: 3,
        }
    }

    fn random_condition(dice: &mut Dice, numbers: &[Option<i128>], depth: u32) -> Expected {
        if depth == 0 {
            return random_leaf(dice, numbers);
        }
        let one = random_condition(dice, numbers, depth - 1);
        match dice.roll(4) {
            0 => Expected {
                text: format!("NOT {}", one.within(2)),
                holds: !one.holds,
                strength: 2,
            },
            1 => {
                let other = random_condition(dice, numbers, depth - 1);
                Expected {
                    text: format!("{} AND {}", one.within(1), other.within(1)),
                    holds: one.holds && other.holds,
                    strength: 1,
                }
            }
            2 => {
                let other = random_condition(dice, numbers, depth - 1);
                Expected {
                    text: format!("{} or {}", one.within(0), other.within(0)),
                    holds: one.holds || other.holds,
                    strength: 0,
                }
            }
            _ => one,
        }
    }

    #[test]
    fn random_conditions_hold_as_their_parts_say() {
        let mut dice = Dice(4);
        let mut held = 0;
        for _ in 0..5000 {
            let numbers: Vec<Option<i128>> = (0..4)
                .map(|_| [None, Some(0), Some(1), Some(7), Some(9)][dice.roll(5) as usize])
                .collect();
            let item: Attributes = ["a", "b", "c", "d"]
                .iter()
                .zip(&numbers)
                .filter_map(|(name, number)| Some((name.to_string(), Value::N((*number)?))))
                .collect();
            let depth = dice.roll(5) as u32;
            let expected = random_condition(&mut dice, &numbers, depth);
            assert_eq!(
                holds(&expected.text, &item),
                expected.holds,
                "{} of {numbers:?}",
                expected.text
            );
            held += usize::from(expected.holds);
        }
        // Neither is the rule, or the test would see little.
        assert!((1000..4000).contains(&held), "{held}");
    }

    #[test]
    fn random_texts_are_read_or_refused() {
        const WORDS: [&str; 18] = [
            "(",
            ")",
            "a",
            "#n",
            ":n",
            "=",
            "<",
            "AND",
            "OR",
            "NOT",
            "IN",
            "BETWEEN",
            ",",
            "size(",
            "attribute_exists(",
            ".",
            "[0]",
            "\u{1F600}",
        ];
        let mut dice = Dice(5);
        for _ in 0..20_000 {
            let words: Vec<&str> = (0..=dice.roll(12))
                .map(|_| WORDS[dice.roll(WORDS.len() as u64) as usize])
                .collect();
            let text = words.join(" ");
            if let Err(refusal) =
                Condition::parse("ConditionExpression", &text, &mut placeholders())
            {
                assert_eq!(refusal.code, "ValidationException", "{text}");
            }
        }
    }
}
