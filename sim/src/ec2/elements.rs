//! Elements that the answers of several actions have.

use chrono::{DateTime, Utc};

use crate::xml::Xml;

/// The answer of actions that have nothing to tell.
pub(super) fn done() -> Xml {
    Xml::fragment(|xml| xml.text("return", true))
}

pub(super) fn timestamp(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Writes `productCodes`; all that are simulated are AWS Marketplace's.
pub(super) fn write_product_codes(xml: &mut Xml, codes: &[String]) {
    xml.list("productCodes", codes, |xml, code| {
        xml.text("productCode", code);
        xml.text("type", "marketplace");
    });
}
