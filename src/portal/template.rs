//! A page with holes: text, escaped values and sections. So small that no library is worth its weight.
//!
//! `{{name}}` is a value, escaped without exception. `{{#name}}…{{/name}}` is there when the flag holds, `{{^name}}…{{/name}}`
//! when it does not. Sections nest.

use std::borrow::Cow;

/// What fills a page.
pub trait Fill {
    /// A value, not yet escaped; `None` for a name that the page should not know.
    fn value(&self, name: &str) -> Option<Cow<'_, str>>;
    /// Whether a section is there; `None` for a name that the page should not know.
    fn flag(&self, name: &str) -> Option<bool>;
}

/// Fills `page`. Names that `fill` does not know leave nothing behind; a test finds them.
pub fn render(page: &str, fill: &impl Fill) -> String {
    let mut out = String::with_capacity(page.len() * 5 / 4);
    // Whether each open section is there. What is not, hides all within.
    let mut open: Vec<bool> = Vec::new();
    let mut parts = page.split("{{");
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (name, text) = part.split_once("}}").unwrap_or((part, ""));
        if let Some(name) = name.strip_prefix('#') {
            open.push(fill.flag(name) == Some(true));
        } else if let Some(name) = name.strip_prefix('^') {
            open.push(fill.flag(name) == Some(false));
        } else if name.starts_with('/') {
            open.pop();
        } else if open.iter().all(|shown| *shown) {
            escape(&fill.value(name).unwrap_or_default(), &mut out);
        }
        if open.iter().all(|shown| *shown) {
            out.push_str(text);
        }
    }
    out
}

/// Escapes for text and for attribute values in quotes. What controls a terminal or the direction of text is left out: the
/// page's lines are made to be copied, and must read as they run.
fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {}
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Given(&'static str);

    impl Fill for Given {
        fn value(&self, name: &str) -> Option<Cow<'_, str>> {
            (name == "x").then_some(Cow::Borrowed(self.0))
        }
        fn flag(&self, name: &str) -> Option<bool> {
            match name {
                "on" => Some(true),
                "off" => Some(false),
                _ => None,
            }
        }
    }

    #[test]
    fn sections_are_there_or_not_and_nest() {
        let page = "a{{#on}}b{{^on}}c{{/on}}{{#off}}d{{#on}}e{{x}}{{/on}}f{{/off}}{{^off}}g{{/off}}{{/on}}h{{x}}";
        assert_eq!(render(page, &Given("!")), "abgh!");
        assert_eq!(render("{{#strange}}a{{/strange}}{{^strange}}b{{/strange}}{{y}}c", &Given("")), "c");
        assert_eq!(render("a{{x", &Given("!")), "a!");
    }

    #[test]
    fn no_value_leaves_the_place_it_is_put_in() {
        let hostile = "</script><img src=x onerror='alert(1)'>\"&{{x}}\u{202e}\x1b[2J\n";
        let shown = render("<a title=\"{{x}}\">{{x}}</a>", &Given(hostile));
        let escaped = "&lt;/script&gt;&lt;img src=x onerror=&#39;alert(1)&#39;&gt;&quot;&amp;{{x}}[2J";
        assert_eq!(shown, format!("<a title=\"{escaped}\">{escaped}</a>"));
    }
}
