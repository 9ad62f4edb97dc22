//! Tables of keys and values with the place of each, whether they come from TOML or from a
//! `--device` option: one set of rules and of complaints for both.
//!
//! Takes no lock.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::mistake::{Fault, Mistake, Source};

/// What reading comes to.
pub(super) type Read<T> = Result<T, Box<Mistake>>;

/// A text and where it stands.
pub(super) type Text = (String, Range<usize>);

/// A value with the bytes of the source that it came from.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) span: Range<usize>,
    pub(super) content: Content,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Text(String),
    /// `None` where it does not fit 64 bits unsigned.
    Number(Option<u64>),
    Switch(bool),
    List(Vec<Value>),
    Table(Vec<Field>),
    /// From an option: a number, a switch or text, as the key wants.
    Word(String),
    /// A date or a float: no key takes one.
    Other(&'static str),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) key: String,
    pub(super) key_span: Range<usize>,
    pub(super) value: Value,
}

/// One table being read. Keys are taken out one by one.
pub(super) struct Fields<'s> {
    pub(super) source: &'s Source,
    /// What messages call the table.
    name: String,
    pub(super) span: Range<usize>,
    fields: Vec<Field>,
}

impl<'s> Fields<'s> {
    /// Parses a TOML document.
    pub(super) fn of_toml(source: &'s Source) -> Read<Self> {
        let table = DeTable::parse(&source.text).map_err(|error| {
            let message = error.message().trim().replace('\n', ", ");
            Mistake::new(source, error.span().unwrap_or(0..0), Fault::Syntax { message })
        })?;
        let span = table.span();
        Ok(Self::new(source, "the file", span, fields_of(table.get_ref())))
    }

    pub(super) fn new(
        source: &'s Source,
        name: impl Into<String>,
        span: Range<usize>,
        fields: Vec<Field>,
    ) -> Self {
        Self { source, name: name.into(), span, fields }
    }

    pub(super) fn mistake(&self, span: Range<usize>, fault: Fault) -> Box<Mistake> {
        Mistake::new(self.source, span, fault)
    }

    /// Refuses keys other than `allowed`, those of `later` with the reason that they come later.
    pub(super) fn allow(&self, allowed: &[&'static str], later: &[&'static str]) -> Read<()> {
        let Some(field) = self.fields.iter().find(|field| !allowed.contains(&field.key.as_str()))
        else {
            return Ok(());
        };
        let allowed = allowed.to_vec();
        let fault = match later.iter().find(|key| **key == field.key) {
            Some(key) => Fault::KeyNotYet { key, allowed },
            None => Fault::UnknownKey { key: field.key.clone(), table: self.name.clone(), allowed },
        };
        Err(self.mistake(field.key_span.clone(), fault))
    }

    /// Where a key's value stands; nowhere in particular where it does not.
    pub(super) fn place_of(&self, key: &str) -> Range<usize> {
        let field = self.fields.iter().find(|field| field.key == key);
        field.map_or(0..0, |field| field.value.span.clone())
    }

    /// Takes a key out.
    pub(super) fn take(&mut self, key: &str) -> Option<Field> {
        let at = self.fields.iter().position(|field| field.key == key)?;
        Some(self.fields.remove(at))
    }

    /// Takes a key that must be there.
    pub(super) fn need(&mut self, key: &'static str) -> Read<Field> {
        self.take(key).ok_or_else(|| {
            self.mistake(self.span.clone(), Fault::Missing { key, table: self.name.clone() })
        })
    }

    /// A text, where there is one.
    pub(super) fn text(&mut self, key: &str) -> Read<Option<Text>> {
        self.take(key).map(|field| self.as_text(&field.key, &field.value)).transpose()
    }

    /// A truth value, where there is one.
    pub(super) fn switch(&mut self, key: &str) -> Read<Option<bool>> {
        let Some(field) = self.take(key) else { return Ok(None) };
        let Content::Switch(on) = field.value.content else {
            return Err(self.wrong_type(&field.key, &field.value, "true or false"));
        };
        Ok(Some(on))
    }

    /// A number within `range`, which `allowed` says in words, where there is one.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
        allowed: &'static str,
    ) -> Read<Option<u64>> {
        let Some(field) = self.take(key) else { return Ok(None) };
        let number = self.as_number(key, &field.value)?.filter(|number| range.contains(number));
        let Some(number) = number else {
            let fault = Fault::OutOfRange { key, value: self.written(&field.value), allowed };
            return Err(self.mistake(field.value.span, fault));
        };
        Ok(Some(number))
    }

    /// One of a set of words, where there is one.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        values: &[(&'static str, T)],
    ) -> Read<Option<T>> {
        let Some((word, span)) = self.text(key)? else { return Ok(None) };
        if let Some((_, value)) = values.iter().find(|(name, _)| *name == word) {
            return Ok(Some(*value));
        }
        let names = values.iter().map(|(name, _)| *name).collect();
        Err(self.mistake(span, Fault::UnknownValue { key, value: word, allowed: names }))
    }

    /// A table, where there is one.
    pub(super) fn table(&mut self, key: &str, name: &str) -> Read<Option<Fields<'s>>> {
        let Some(field) = self.take(key) else { return Ok(None) };
        // A header's own line is a better place to point at than the table's span, which may be long.
        self.as_table(&field, &field.value, name, field.key_span.clone()).map(Some)
    }

    /// The tables of a list, in order; none where there is no list.
    pub(super) fn tables(&mut self, key: &str, name: &str) -> Read<Vec<Fields<'s>>> {
        match self.take(key) {
            Some(field) => self.list_of_tables(&field, name),
            None => Ok(Vec::new()),
        }
    }

    /// The tables of the list that `field` is.
    pub(super) fn list_of_tables(&self, field: &Field, name: &str) -> Read<Vec<Fields<'s>>> {
        self.as_list(field)?
            .iter()
            .map(|value| self.as_table(field, value, name, value.span.clone()))
            .collect()
    }

    /// The texts of a list, in order, where there is one.
    pub(super) fn texts(&mut self, key: &str) -> Read<Option<Vec<Text>>> {
        let Some(field) = self.take(key) else { return Ok(None) };
        self.as_list(&field)?
            .iter()
            .map(|value| self.as_text(key, value))
            .collect::<Read<_>>()
            .map(Some)
    }

    fn as_list<'f>(&self, field: &'f Field) -> Read<&'f [Value]> {
        let Content::List(values) = &field.value.content else {
            return Err(self.wrong_type(&field.key, &field.value, "a list"));
        };
        Ok(values)
    }

    fn as_table(
        &self,
        field: &Field,
        value: &Value,
        name: &str,
        span: Range<usize>,
    ) -> Read<Fields<'s>> {
        let Content::Table(fields) = &value.content else {
            return Err(self.wrong_type(&field.key, value, "a table"));
        };
        Ok(Fields::new(self.source, name, span, fields.clone()))
    }

    pub(super) fn as_text(&self, key: &str, value: &Value) -> Read<Text> {
        let (Content::Text(text) | Content::Word(text)) = &value.content else {
            return Err(self.wrong_type(key, value, "a text in quotes"));
        };
        Ok((text.clone(), value.span.clone()))
    }

    /// `None` where it does not fit 64 bits unsigned.
    pub(super) fn as_number(&self, key: &str, value: &Value) -> Read<Option<u64>> {
        let number = if let Content::Number(number) = &value.content {
            Some(*number)
        } else if let Content::Word(word) = &value.content {
            number_of(word)
        } else {
            None
        };
        number.ok_or_else(|| self.wrong_type(key, value, "a number"))
    }

    pub(super) fn wrong_type(
        &self,
        key: &str,
        value: &Value,
        expected: &'static str,
    ) -> Box<Mistake> {
        let found = value.content.kind();
        let fault = Fault::WrongType { key: key.to_owned(), expected, found };
        self.mistake(value.span.clone(), fault)
    }

    /// A value as its source has it.
    pub(super) fn written(&self, value: &Value) -> String {
        self.source.text.get(value.span.clone()).unwrap_or_default().to_owned()
    }
}

impl Content {
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Word(_) => "a text",
            Self::Number(_) => "a number",
            Self::Switch(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// An option's number, decimal or with `0x`. `Some(None)` where it is one that does not fit.
fn number_of(word: &str) -> Option<Option<u64>> {
    let (digits, radix) = match word.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (word, 10),
    };
    let plain = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    plain.then(|| u64::from_str_radix(digits, radix).ok())
}

fn fields_of(table: &DeTable<'_>) -> Vec<Field> {
    let mut fields: Vec<Field> = table
        .iter()
        .map(|(key, value)| Field {
            key: key.get_ref().to_string(),
            key_span: key.span(),
            value: value_of(value.span(), value.get_ref()),
        })
        .collect();
    fields.sort_by_key(|field| field.key_span.start);
    fields
}

fn value_of(span: Range<usize>, value: &DeValue<'_>) -> Value {
    let content = match value {
        DeValue::String(text) => Content::Text(text.to_string()),
        DeValue::Integer(number) => {
            Content::Number(u64::from_str_radix(number.as_str(), number.radix()).ok())
        }
        DeValue::Boolean(on) => Content::Switch(*on),
        DeValue::Array(values) => Content::List(
            values.iter().map(|value| value_of(value.span(), value.get_ref())).collect(),
        ),
        DeValue::Table(table) => Content::Table(fields_of(table)),
        DeValue::Float(_) => Content::Other("a number with a fraction"),
        DeValue::Datetime(_) => Content::Other("a date"),
    };
    Value { span, content }
}
