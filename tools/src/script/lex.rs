//! Words of a script's line, each with its column.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a script cannot be understood, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseError {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// The line itself.
    pub text: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, column, message, text } = self;
        writeln!(f, "{}:{line}:{column}: {message}", path.display())?;
        writeln!(f, "    {text}")?;
        write!(f, "    {:>width$}", "^", width = column)
    }
}

impl std::error::Error for ParseError {}

/// One word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Token {
    /// Anything without spaces, brackets, commas and quotation marks.
    Word(String),
    /// Text between quotation marks.
    Text(Vec<u8>),
    /// `[`
    Open,
    /// `]`
    Close,
    /// `,`
    Comma,
}

impl Token {
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Word(word) => format!("`{word}`"),
            Self::Text(_) => "a text".into(),
            Self::Open => "`[`".into(),
            Self::Close => "`]`".into(),
            Self::Comma => "`,`".into(),
        }
    }
}

/// The words of one line that are still to be read.
pub(super) struct Line<'a> {
    path: &'a Path,
    number: usize,
    text: &'a str,
    tokens: Vec<(usize, Token)>,
    at: usize,
}

impl<'a> Line<'a> {
    /// Splits a line; everything behind `#` is a comment.
    pub(super) fn new(path: &'a Path, number: usize, text: &'a str) -> Result<Self, ParseError> {
        let mut line = Self { path, number, text, tokens: Vec::new(), at: 0 };
        let mut rest = text.char_indices().peekable();
        while let Some((start, first)) = rest.next() {
            let token = match first {
                '#' => break,
                c if c.is_whitespace() => continue,
                '[' => Token::Open,
                ']' => Token::Close,
                ',' => Token::Comma,
                '"' => {
                    let mut bytes = String::new();
                    loop {
                        match rest.next() {
                            Some((_, '"')) => break,
                            Some((_, c)) => bytes.push(c),
                            None => return Err(line.error_at(start + 1, "a text without its closing quotation mark")),
                        }
                    }
                    Token::Text(bytes.into_bytes())
                }
                c => {
                    let mut word = String::from(c);
                    while let Some((_, next)) =
                        rest.next_if(|(_, next)| !next.is_whitespace() && !matches!(next, '[' | ']' | ',' | '"' | '#'))
                    {
                        word.push(next);
                    }
                    Token::Word(word)
                }
            };
            line.tokens.push((start + 1, token));
        }
        Ok(line)
    }

    /// True when nothing is left.
    pub(super) fn is_done(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// The next token, left in place.
    pub(super) fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    /// The next word, left in place; `None` for anything else.
    pub(super) fn peek_word(&self) -> Option<&str> {
        match self.peek() {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    /// Takes the next token.
    pub(super) fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).map(|(_, token)| token.clone());
        self.at += 1;
        token
    }

    /// Takes the next token when it is this one.
    pub(super) fn take(&mut self, token: &Token) -> bool {
        let there = self.peek() == Some(token);
        self.at += usize::from(there);
        there
    }

    /// Takes the next word when it is this one.
    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let there = self.peek_word() == Some(word);
        self.at += usize::from(there);
        there
    }

    /// The next token has to be a word.
    pub(super) fn word(&mut self, what: &str) -> Result<String, ParseError> {
        match self.next() {
            Some(Token::Word(word)) => Ok(word),
            Some(other) => Err(self.error(format!("{} where {what} should stand", other.describe()))),
            None => Err(self.error(format!("{what} is missing"))),
        }
    }

    /// The next token has to be a text.
    pub(super) fn text(&mut self, what: &str) -> Result<Vec<u8>, ParseError> {
        match self.next() {
            Some(Token::Text(text)) => Ok(text),
            Some(other) => {
                Err(self.error(format!("{} where {what} in quotation marks should stand", other.describe())))
            }
            None => Err(self.error(format!("{what} in quotation marks is missing"))),
        }
    }

    /// Nothing may be left.
    pub(super) fn end(&mut self) -> Result<(), ParseError> {
        match self.next() {
            None => Ok(()),
            Some(token) => Err(self.error(format!("{} is too much here", token.describe()))),
        }
    }

    /// An error at the token taken last.
    pub(super) fn error(&self, message: impl Into<String>) -> ParseError {
        let last = self.at.saturating_sub(1);
        let column = self.tokens.get(last).map_or(self.text.chars().count() + 1, |(column, _)| *column);
        self.error_at(column, message)
    }

    fn error_at(&self, column: usize, message: impl Into<String>) -> ParseError {
        ParseError {
            path: self.path.to_owned(),
            line: self.number,
            column,
            message: message.into(),
            text: self.text.to_owned(),
        }
    }
}
