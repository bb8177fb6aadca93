//! Writer for XML answers.

use quick_xml::escape::escape;

/// An XML document under construction. Element names are constants, so only text is escaped.
#[derive(Debug, Default)]
pub(crate) struct Xml(String);

impl Xml {
    /// A whole document with this root element.
    pub(crate) fn document(
        root: &str,
        namespace: Option<&str>,
        content: impl FnOnce(&mut Xml),
    ) -> String {
        let attributes = match namespace {
            Some(namespace) => format!(" xmlns=\"{namespace}\""),
            None => String::new(),
        };
        let mut xml = Xml(format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root}{attributes}>"
        ));
        content(&mut xml);
        xml.close(root);
        xml.0
    }

    /// Writes an element with child elements.
    pub(crate) fn element(&mut self, name: &str, content: impl FnOnce(&mut Xml)) {
        self.open(name);
        content(self);
        self.close(name);
    }

    /// Writes an element with text.
    pub(crate) fn text(&mut self, name: &str, text: impl std::fmt::Display) {
        self.open(name);
        let text = text.to_string();
        if text.bytes().all(is_plain) {
            self.0.push_str(&text);
        } else {
            self.0.push_str(&escaped(&text));
        }
        self.close(name);
    }

    /// Writes an element with text, or nothing at all if there is no text. Clients read an empty element as an empty
    /// text, and an absent one as absent.
    pub(crate) fn optional(&mut self, name: &str, text: Option<impl std::fmt::Display>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// Writes a list as EC2 does, `<NAME><item>…</item>…</NAME>`, even if there are no items.
    pub(crate) fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut item: impl FnMut(&mut Xml, T),
    ) {
        self.element(name, |xml| {
            for each in items {
                xml.element("item", |xml| item(xml, each));
            }
        });
    }

    /// The output of `content`, without a root.
    pub(crate) fn fragment(content: impl FnOnce(&mut Xml)) -> Xml {
        let mut xml = Xml::default();
        content(&mut xml);
        xml
    }

    /// Inserts a fragment.
    pub(crate) fn include(&mut self, fragment: &Xml) {
        self.0.push_str(&fragment.0);
    }

    #[cfg(test)]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn open(&mut self, name: &str) {
        self.0.push('<');
        self.0.push_str(name);
        self.0.push('>');
    }

    fn close(&mut self, name: &str) {
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push('>');
    }
}

/// Whether a byte needs no escape. Nearly all texts have only such bytes.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'<' | b'>' | b'&' | b'\'' | b'"')
}

/// Escapes text for XML 1.0. A bare carriage return would be read as a line feed, and most control characters cannot be
/// written at all.
fn escaped(text: &str) -> String {
    let representable: String = text
        .chars()
        .map(|c| match c {
            '\t' | '\n' | '\r' => c,
            '\u{FFFE}' | '\u{FFFF}' => '\u{FFFD}',
            c if c < ' ' => '\u{FFFD}',
            c => c,
        })
        .collect();
    escape(representable.as_str()).replace('\r', "&#13;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_can_not_become_markup() {
        let xml = Xml::fragment(|xml| xml.text("name", "</name><state>\"a\" & 'b'\r\u{1}"));
        assert_eq!(
            xml.as_str(),
            "<name>&lt;/name&gt;&lt;state&gt;&quot;a&quot; &amp; &apos;b&apos;&#13;\u{FFFD}</name>"
        );
    }

    #[test]
    fn an_absent_value_is_no_element_and_an_empty_one_is_an_empty_element() {
        let xml = Xml::fragment(|xml| {
            xml.optional("platformDetails", None::<&str>);
            xml.optional("description", Some(""));
        });
        assert_eq!(xml.as_str(), "<description></description>");
    }

    #[test]
    fn a_list_without_items_is_an_empty_element() {
        let document = Xml::document("R", Some("urn:x"), |xml| {
            xml.list("tagSet", Vec::<&str>::new(), |xml, tag| {
                xml.text("key", tag)
            });
        });
        assert_eq!(
            document,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<R xmlns=\"urn:x\"><tagSet></tagSet></R>"
        );
    }
}
