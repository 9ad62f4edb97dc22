//! HTML as it is written: what this program says goes in as it is, what anybody else says only escaped.

/// HTML under way.
#[derive(Default)]
pub(super) struct Markup(String);

impl Markup {
    /// Markup that is part of this program.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text, for an element or a quoted attribute: it can neither end nor begin anything.
    pub(super) fn text(&mut self, text: impl ToString) -> &mut Self {
        for c in text.to_string().chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(c),
                // Not allowed in HTML, or turning around what follows.
                c if c.is_control() || TURNING.contains(&c) => {
                    self.0.push(char::REPLACEMENT_CHARACTER);
                }
                c => self.0.push(c),
            }
        }
        self
    }

    /// `text` as an element without attributes.
    pub(super) fn element(
        &mut self,
        open: &'static str,
        text: impl ToString,
        close: &'static str,
    ) -> &mut Self {
        self.raw(open).text(text).raw(close)
    }

    /// What was written.
    pub(super) fn finish(self) -> String {
        self.0
    }
}

/// Marks that change the direction of the text after them.
const TURNING: [char; 9] = [
    '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}', '\u{2066}', '\u{2067}', '\u{2068}',
    '\u{2069}',
];
