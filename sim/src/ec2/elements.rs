//! Elements that several actions share.

use chrono::{DateTime, Utc};

use crate::xml::Xml;

/// The answer of actions without a result.
pub(super) fn done() -> Xml {
    Xml::fragment(|xml| xml.text("return", true))
}

pub(super) fn timestamp(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Writes `productCodes`. All simulated codes are from AWS Marketplace.
pub(super) fn write_product_codes(xml: &mut Xml, codes: &[String]) {
    xml.list("productCodes", codes, |xml, code| {
        xml.text("productCode", code);
        xml.text("type", "marketplace");
    });
}
