//! The compact text form of a schema, as people type it.

use std::iter::Peekable;
use std::str::CharIndices;

use serde_json::Value;

use super::{DataType, StructField, StructType};
use deltalakedb_catalog_core::error::{CatalogError, Result};

/// Levels of nesting: far more than a table has, far fewer than the stack holds.
const MAX_DEPTH: u32 = 64;

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// Bare word or number.
    Word(String),
    /// `` `name` `` or `"name"`.
    Name(String),
    /// `'text'`.
    Text(String),
    /// One of `,:()<>`.
    Sign(char),
}

impl Token {
    fn show(&self) -> String {
        match self {
            Token::Word(w) | Token::Name(w) | Token::Text(w) => format!("'{w}'"),
            Token::Sign(c) => format!("'{c}'"),
        }
    }
}

/// A name as the text form takes it: bare where it is a word, else in backticks.
pub(super) fn quoted(name: &str) -> String {
    let bare = name.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if bare { name.to_owned() } else { format!("`{}`", name.replace('`', "``")) }
}

pub(super) fn parse(text: &str) -> Result<StructType> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, end: text.chars().count() };
    let fields = parser.fields(0)?;
    match parser.peek() {
        None => Ok(StructType { fields }),
        Some(_) => parser.expected("',' or the end"),
    }
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>> {
    let mut out = Vec::new();
    let mut chars = text.char_indices().peekable();
    // Positions are told in characters, from 1.
    let place = |byte: usize| text[..byte].chars().count() + 1;
    while let Some((start, c)) = chars.next() {
        let token = match c {
            c if c.is_whitespace() => continue,
            ',' | ':' | '(' | ')' | '<' | '>' => Token::Sign(c),
            '`' | '"' => {
                Token::Name(until(&mut chars, c).ok_or_else(|| unclosed(place(start), c))?)
            }
            '\'' => Token::Text(until(&mut chars, c).ok_or_else(|| unclosed(place(start), c))?),
            c if c.is_alphanumeric() || c == '_' => {
                let mut word = String::from(c);
                while let Some((_, c)) = chars
                    .next_if(|(_, c)| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '$'))
                {
                    word.push(c);
                }
                Token::Word(word)
            }
            other => {
                return Err(CatalogError::invalid(format!(
                    "schema text, position {}: {other:?} has no meaning here (names with special \
                     characters go in backticks)",
                    place(start)
                )));
            }
        };
        out.push((place(start), token));
    }
    Ok(out)
}

/// Up to the closing quote; a doubled quote stands for itself.
fn until(chars: &mut Peekable<CharIndices<'_>>, quote: char) -> Option<String> {
    let mut out = String::new();
    loop {
        let (_, c) = chars.next()?;
        if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return Some(out);
        }
        out.push(c);
    }
}

fn unclosed(place: usize, quote: char) -> CatalogError {
    CatalogError::invalid(format!("schema text, position {place}: {quote} is not closed"))
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    end: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn expected<T>(&self, what: &str) -> Result<T> {
        let (place, found) = match self.tokens.get(self.at) {
            Some((place, token)) => (*place, token.show()),
            None => (self.end + 1, "the end".to_owned()),
        };
        Err(CatalogError::invalid(format!(
            "schema text, position {place}: expected {what}, found {found}"
        )))
    }

    fn sign(&mut self, c: char) -> bool {
        let hit = self.peek() == Some(&Token::Sign(c));
        self.at += usize::from(hit);
        hit
    }

    fn need(&mut self, c: char) -> Result<()> {
        if self.sign(c) { Ok(()) } else { self.expected(&format!("'{c}'")) }
    }

    fn word(&mut self, word: &str) -> bool {
        let hit = matches!(self.peek(), Some(Token::Word(w)) if w.eq_ignore_ascii_case(word));
        self.at += usize::from(hit);
        hit
    }

    fn fields(&mut self, depth: u32) -> Result<Vec<StructField>> {
        let mut fields = vec![self.field(depth)?];
        while self.sign(',') {
            fields.push(self.field(depth)?);
        }
        Ok(fields)
    }

    fn field(&mut self, depth: u32) -> Result<StructField> {
        let name = match self.peek() {
            Some(Token::Word(name) | Token::Name(name)) => name.clone(),
            _ => return self.expected("a column name"),
        };
        self.at += 1;
        self.sign(':');
        let data_type = self.data_type(depth)?;
        let nullable = self.nullable()?;
        let mut field = StructField::new(name, data_type, nullable);
        if self.word("comment") {
            let Some(Token::Text(comment)) = self.peek() else {
                return self.expected("the comment in single quotes");
            };
            field.metadata.insert("comment".to_owned(), Value::from(comment.as_str()));
            self.at += 1;
        }
        Ok(field)
    }

    fn nullable(&mut self) -> Result<bool> {
        if self.word("not") {
            if self.word("null") { Ok(false) } else { self.expected("'null' after 'not'") }
        } else {
            self.word("null");
            Ok(true)
        }
    }

    fn data_type(&mut self, depth: u32) -> Result<DataType> {
        if depth > MAX_DEPTH {
            return self.expected(&format!("at most {MAX_DEPTH} levels of nesting"));
        }
        let name = match self.peek() {
            Some(Token::Word(name)) => name.to_ascii_lowercase(),
            _ => return self.expected("a type"),
        };
        let data_type = match name.as_str() {
            "byte" | "tinyint" => DataType::Byte,
            "short" | "smallint" => DataType::Short,
            "integer" | "int" => DataType::Integer,
            "long" | "bigint" => DataType::Long,
            "float" | "real" => DataType::Float,
            "double" => {
                self.at += 1;
                self.word("precision");
                return Ok(DataType::Double);
            }
            "string" | "text" => DataType::String,
            "binary" | "varbinary" | "bytes" => DataType::Binary,
            "boolean" | "bool" => DataType::Boolean,
            "date" => DataType::Date,
            "timestamp" => DataType::Timestamp,
            "timestamp_ntz" => DataType::TimestampNtz,
            "variant" => DataType::Variant,
            "void" => DataType::Void,
            "decimal" | "numeric" | "dec" => {
                self.at += 1;
                return self.decimal();
            }
            "array" => {
                self.at += 1;
                self.need('<')?;
                let element = Box::new(self.data_type(depth + 1)?);
                let contains_null = self.nullable()?;
                self.need('>')?;
                return Ok(DataType::Array { element, contains_null });
            }
            "map" => {
                self.at += 1;
                self.need('<')?;
                let key = Box::new(self.data_type(depth + 1)?);
                self.need(',')?;
                let value = Box::new(self.data_type(depth + 1)?);
                let value_contains_null = self.nullable()?;
                self.need('>')?;
                return Ok(DataType::Map { key, value, value_contains_null });
            }
            "struct" => {
                self.at += 1;
                self.need('<')?;
                let fields = self.fields(depth + 1)?;
                self.need('>')?;
                return Ok(DataType::Struct(StructType { fields }));
            }
            _ => {
                return self.expected(
                    "a type (byte, short, integer, long, float, double, decimal(p,s), string, \
                     binary, boolean, date, timestamp, timestamp_ntz, variant, array<…>, map<…>, \
                     struct<…>)",
                );
            }
        };
        self.at += 1;
        Ok(data_type)
    }

    /// `(precision[,scale])`; (10,0) if left out, as in Spark.
    fn decimal(&mut self) -> Result<DataType> {
        if !self.sign('(') {
            return Ok(DataType::Decimal { precision: 10, scale: 0 });
        }
        let precision = self.digits()?;
        let scale = if self.sign(',') { self.digits()? } else { 0 };
        self.need(')')?;
        Ok(DataType::Decimal { precision, scale })
    }

    fn digits(&mut self) -> Result<u8> {
        match self.peek() {
            Some(Token::Word(word)) => match word.parse() {
                Ok(number) => {
                    self.at += 1;
                    Ok(number)
                }
                Err(_) => self.expected("a number of digits (at most 38)"),
            },
            _ => self.expected("a number of digits (at most 38)"),
        }
    }
}
