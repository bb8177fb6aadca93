//! What AWS was seen to answer, each as `tests/corpus/billing.toml` labels it. The answers are other people's, so this
//! does not share a spelling with the simulator.

use std::collections::BTreeSet;

use ami_billing_guard::billing::{
    BilledAs, Billing, Parsed, Platform, Platforms, parse_platform_details, parse_usage_operation,
};
use ami_billing_guard::ec2::{Image, Observation};
use ami_billing_guard::expectation::{Evidence, Expectation, Says, Source};
use ami_billing_guard::judge;
use ami_billing_guard::verdict::Verdict;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    what: String,
    /// Kept with the answer: which image it was.
    #[serde(rename = "owner")]
    _owner: Option<String>,
    details: Option<String>,
    operation: Option<String>,
    product_codes: Option<BTreeSet<String>>,
    billing_products: Option<Vec<String>>,
    means: String,
    product: String,
    call: String,
    kind: String,
    source: String,
}

fn corpus() -> Vec<Seen> {
    #[derive(Deserialize)]
    struct File {
        seen: Vec<Seen>,
    }
    let file: File = toml::from_str(include_str!("../corpus/billing.toml")).unwrap();
    file.seen
}

impl Seen {
    /// The billing that the label names; `None` where it says that the answer has no known one.
    fn billing(&self) -> Option<Billing> {
        if ["unrecognised", "contradiction"].contains(&self.means.as_str()) {
            return None;
        }
        match Platform::parse(&self.means) {
            Some(Platform::Exactly(billing)) => Some(billing),
            other => panic!("{}: {other:?}", self.means),
        }
    }

    /// The image that this is the answer about. Bills and price lists have no platform details: theirs are taken for a
    /// spelling that is not known.
    fn image(&self) -> Image {
        let unknown = || Some("a spelling that is to come".to_owned());
        Image {
            platform_details: self.details.clone().or_else(unknown),
            usage_operation: self.operation.clone(),
            product_codes: self.product_codes.clone().unwrap_or_default(),
            ..Image::default()
        }
    }

    fn verdict_if_declared(&self, platform: &str) -> Verdict {
        let evidence = Evidence {
            source: Source::ImageTag,
            says: Says::Platforms(Platforms::parse([platform]).unwrap()),
            detail: String::new(),
        };
        let expectation = Expectation {
            evidence: vec![evidence],
            ..Expectation::default()
        };
        let observation = Observation::Available(Box::new(self.image()));
        judge(&observation, &expectation).verdict
    }
}

#[test]
fn every_recorded_answer_parses_and_is_judged_as_it_is_labelled() {
    for seen in corpus() {
        let billing = seen.billing();
        let parsed = |field: Parsed| match field {
            Parsed::Known(known) => Some(known),
            Parsed::Absent | Parsed::Unrecognised => None,
        };
        let contradicts = seen.means == "contradiction";
        if seen.details.is_some() && !contradicts {
            let details = parsed(parse_platform_details(seen.details.as_deref()));
            assert_eq!(details, billing, "{seen:?}");
        }
        if seen.operation.is_some() && !contradicts {
            let operation = parsed(parse_usage_operation(seen.operation.as_deref()));
            assert_eq!(operation, billing, "{seen:?}");
        }
        if let Some(codes) = &seen.billing_products {
            let codes = codes.iter().map(String::as_str);
            let requested = Billing::of_products(codes);
            assert_eq!(requested, (billing, Vec::new()), "{seen:?}");
            continue;
        }
        let billed_as = seen.image().billed_as();
        let Some(billing) = billing else {
            let (expected, verdict) = match contradicts {
                true => (BilledAs::Contradiction, Verdict::Conflict),
                false => (BilledAs::Unrecognised, Verdict::Unverifiable),
            };
            assert_eq!(billed_as, expected, "{seen:?}");
            assert_eq!(seen.verdict_if_declared("Windows"), verdict, "{seen:?}");
            continue;
        };
        assert_eq!(billed_as.billing(), Some(billing), "{seen:?}");
        for spelling in [
            &seen.means,
            &billing.to_string(),
            &billing.usage_operation(),
        ] {
            assert_eq!(
                seen.verdict_if_declared(spelling),
                Verdict::Verified,
                "{spelling}: {seen:?}"
            );
        }
        if let Some(details) = &seen.details {
            // What is copied from the console into a tag is understood too.
            assert_eq!(seen.verdict_if_declared(details), Verdict::Verified);
        }
        let other = match billing.os == Billing::PLAIN_LINUX.os {
            true => "Windows",
            false => "Linux",
        };
        let verdict = seen.verdict_if_declared(other);
        assert!(matches!(verdict, Verdict::Mismatch(_)), "{seen:?}");
    }
}

#[test]
fn the_corpus_is_of_many_meanings_products_and_independent_sources() {
    let corpus = corpus();
    let distinct = |of: fn(&Seen) -> Option<&str>| -> usize {
        corpus.iter().filter_map(of).collect::<BTreeSet<_>>().len()
    };
    let (details, operations) = (
        distinct(|seen| seen.details.as_deref()),
        distinct(|seen| seen.operation.as_deref()),
    );
    let (meanings, products) = (
        distinct(|seen| Some(&seen.means)),
        distinct(|seen| Some(&seen.product)),
    );
    // Of a repository's several files it is the repository that counts.
    let sources = distinct(
        |seen| match seen.source.starts_with("a public repository") {
            true => Some(&seen.source),
            false => seen.source.split(',').next(),
        },
    );
    println!(
        "{} answers: {details} platform details, {operations} operations, {meanings} meanings, {products} products, {sources} \
         sources",
        corpus.len()
    );
    assert!(corpus.len() >= 40 && meanings >= 15 && sources >= 10);
    let own_words = |seen: &&Seen| {
        ["recorded", "asserted by a test on live instances"].contains(&seen.kind.as_str())
    };
    assert!(corpus.iter().filter(own_words).count() >= 40);
    for seen in &corpus {
        assert!(!seen.what.is_empty() && !seen.call.is_empty() && !seen.product.is_empty());
    }
}
