//! JUnit XML, so that CI systems show each AMI as a test. The elements and attributes are those that Jenkins's xUnit
//! plugin (`junit-10.xsd`), GitLab and CodeBuild all accept. Properties are therefore on the suite: a test has none.

use std::io;

use ami_billing_guard::ids::AmiId;
use ami_billing_guard::record::Record;
use ami_billing_guard::verdict::Verdict;
use anstream::adapter::strip_str;
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

use super::judge::Unjudged;
use crate::outcome::Outcome;
use crate::show::{bills, shown};

type Xml = Writer<Vec<u8>>;

/// An AMI, and what is known about it.
pub(super) struct Case {
    pub(super) region: String,
    pub(super) image: AmiId,
    /// Its record, with the text for people.
    pub(super) result: Result<(Record, String), Unjudged>,
}

/// How CI systems show an AMI.
#[derive(Clone, Copy, PartialEq)]
enum Status {
    Passed,
    Failure,
    Error,
    Skipped,
}

impl Status {
    /// The element inside a test. A test that passed has none.
    fn element(self) -> Option<&'static str> {
        match self {
            Status::Passed => None,
            Status::Failure => Some("failure"),
            Status::Error => Some("error"),
            Status::Skipped => Some("skipped"),
        }
    }
}

impl Case {
    fn status(&self) -> Status {
        let Ok((record, _)) = &self.result else {
            return Status::Error;
        };
        match Outcome::of(record.verdict) {
            Outcome::Mismatch => Status::Failure,
            Outcome::Usage | Outcome::Unknown => Status::Error,
            Outcome::Good if record.verdict == Verdict::Verified => Status::Passed,
            Outcome::Good => Status::Skipped,
        }
    }

    fn write(&self, xml: &mut Xml) -> io::Result<()> {
        let (name, kind, message, text) = match &self.result {
            Ok((record, text)) => (
                record.name.as_deref().map(shown).unwrap_or_default(),
                record.verdict.label(),
                shown(&record.reason),
                strip_str(text).to_string(),
            ),
            Err(unjudged) => (
                String::new(),
                unjudged.error_type.to_owned(),
                shown(&unjudged.why),
                unjudged.why.clone(),
            ),
        };
        let name = format!("{} {name}", self.image);
        let test = xml.create_element("testcase").with_attributes([
            ("classname", xml_1_0(&self.region).as_str()),
            ("name", xml_1_0(name.trim_end()).as_str()),
        ]);
        let text = xml_1_0(&text);
        test.write_inner_content(|xml| {
            let element = match self.status().element() {
                None => xml.create_element("system-out"),
                Some(element) => xml.create_element(element).with_attributes([
                    ("type", xml_1_0(&kind).as_str()),
                    ("message", xml_1_0(&message).as_str()),
                ]),
            };
            element.write_text_content(BytesText::new(&text)).map(drop)
        })?;
        Ok(())
    }
}

/// The document: one suite with a test for each AMI.
pub(super) fn document(cases: &[Case]) -> io::Result<Vec<u8>> {
    let number = |of: Status| cases.iter().filter(|it| it.status() == of).count();
    let tests = cases.len().to_string();
    let failures = number(Status::Failure).to_string();
    let errors = number(Status::Error).to_string();
    let skipped = number(Status::Skipped).to_string();
    let sums = [
        ("name", "ami-guard check"),
        ("tests", &tests),
        ("failures", &failures),
        ("errors", &errors),
    ];
    let mut xml = Writer::new_with_indent(Vec::new(), b' ', 2);
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    xml.create_element("testsuites")
        .with_attributes(sums)
        .write_inner_content(|xml| {
            xml.create_element("testsuite")
                .with_attributes(sums)
                .with_attribute(("skipped", skipped.as_str()))
                .write_inner_content(|xml| {
                    properties(cases, xml)?;
                    cases.iter().try_for_each(|case| case.write(xml))
                })?;
            Ok(())
        })?;
    let mut document = xml.into_inner();
    document.push(b'\n');
    Ok(document)
}

/// What each AMI is billed as, and what is expected.
fn properties(cases: &[Case], xml: &mut Xml) -> io::Result<()> {
    xml.create_element("properties")
        .write_inner_content(|xml| {
            let mut property = |case: &Case, what: &str, value: &str| {
                let name = format!("{}:{}/{what}", case.region, case.image);
                xml.create_element("property")
                    .with_attributes([
                        ("name", xml_1_0(&name).as_str()),
                        ("value", xml_1_0(value).as_str()),
                    ])
                    .write_empty()
                    .map(drop)
            };
            for case in cases {
                let Ok((record, _)) = &case.result else {
                    continue;
                };
                if let Some(actual) = &record.actual {
                    property(case, "billed-as", &bills(actual))?;
                }
                if let Some(expected) = &record.expected {
                    property(case, "expected", &shown(&expected.text()))?;
                }
            }
            Ok(())
        })?;
    Ok(())
}

/// Replaces the characters that XML 1.0 does not allow, not even escaped. (W3C, "Extensible Markup Language 1.0",
/// production Char.)
fn xml_1_0(text: &str) -> String {
    let allowed = |letter: char| match letter {
        '\t' | '\n' | '\r' | ' '..='\u{d7ff}' => letter,
        '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}' => letter,
        _ => char::REPLACEMENT_CHARACTER,
    };
    text.chars().map(allowed).collect()
}

#[cfg(test)]
mod tests {
    use quick_xml::Reader;

    use super::*;

    #[test]
    fn text_from_outside_cannot_break_the_document() {
        let all: String = ('\0'..='\u{ffff}').collect();
        let hostile = format!("]]></failure><testcase name='x'/>&amp;\"'{all}");
        let unjudged = Unjudged {
            error_type: "Refused",
            why: hostile,
        };
        let case = Case {
            region: "eu-west-1".into(),
            image: "ami-0a1b2c3d".parse().unwrap(),
            result: Err(unjudged),
        };
        let document = String::from_utf8(document(&[case]).unwrap()).unwrap();
        for letter in document.chars() {
            let allowed = matches!(letter, '\t' | '\n' | '\r' | ' '..='\u{fffd}');
            assert!(allowed, "{letter:?}");
        }
        let mut reader = Reader::from_str(&document);
        let mut elements = Vec::new();
        loop {
            match reader.read_event().unwrap() {
                Event::Start(start) => elements.push(start.name().as_ref().to_owned()),
                Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!(
            elements,
            ["testsuites", "testsuite", "properties", "testcase", "error"]
        );
    }
}
