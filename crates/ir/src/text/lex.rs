//! Text to tokens.

use super::ParseError;

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// A bare word: letters, digits, `_` and `.`, starting with a letter or `_`.
    Word(String),
    /// A number as written, with its sign; also `-inf`.
    Number(String),
    /// The text between quotes, escapes resolved.
    Text(String),
    /// The name of a value: what follows `%`.
    Value(String),
    /// A single character.
    Punctuation(char),
    /// The end of the text.
    End,
}

/// A token and where it starts; lines and columns count from 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub kind: Kind,
    pub line: usize,
    pub column: usize,
}

struct Lexer<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
    column: usize,
}

/// All tokens of a text; the last one is [`Kind::End`].
pub(super) fn lex(text: &str) -> Result<Vec<Token>, ParseError> {
    let mut lexer = Lexer {
        rest: text.chars().peekable(),
        line: 1,
        column: 1,
    };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks()?;
        let (line, column) = (lexer.line, lexer.column);
        let kind = lexer.token()?;
        let end = kind == Kind::End;
        tokens.push(Token { kind, line, column });
        if end {
            return Ok(tokens);
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

impl Lexer<'_> {
    fn bump(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        if c == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        Some(c)
    }

    fn error<T>(&self, message: &str) -> Result<T, ParseError> {
        Err(ParseError {
            line: self.line,
            column: self.column,
            message: message.to_string(),
        })
    }

    fn take_while(&mut self, test: impl Fn(char) -> bool) -> String {
        let mut text = String::new();
        while let Some(&c) = self.rest.peek() {
            if !test(c) {
                break;
            }
            text.push(c);
            self.bump();
        }
        text
    }

    fn skip_blanks(&mut self) -> Result<(), ParseError> {
        loop {
            self.take_while(char::is_whitespace);
            if self.rest.peek() != Some(&'/') {
                return Ok(());
            }
            self.bump();
            if self.rest.peek() != Some(&'/') {
                return self.error("expected `//`");
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn token(&mut self) -> Result<Kind, ParseError> {
        let Some(&c) = self.rest.peek() else {
            return Ok(Kind::End);
        };
        Ok(match c {
            '"' => Kind::Text(self.quoted()?),
            '%' => {
                self.bump();
                let name = self.take_while(is_word);
                if name.is_empty() {
                    return self.error("expected the name of a value after `%`");
                }
                Kind::Value(name)
            }
            '-' => {
                self.bump();
                let digits = self.number();
                if digits.is_empty() {
                    return self.error("expected a number after `-`");
                }
                Kind::Number(format!("-{digits}"))
            }
            c if c.is_ascii_digit() => Kind::Number(self.number()),
            c if c.is_ascii_alphabetic() || c == '_' => Kind::Word(self.take_while(is_word)),
            c => {
                self.bump();
                Kind::Punctuation(c)
            }
        })
    }

    /// Digits and letters up to the next separator, with the sign of an exponent: `16`, `1e-5`, `00ff`, `inf`.
    fn number(&mut self) -> String {
        let mut text = String::new();
        while let Some(&c) = self.rest.peek() {
            let sign = (c == '-' || c == '+') && (text.ends_with('e') || text.ends_with('E'));
            if !is_word(c) && !sign {
                break;
            }
            text.push(c);
            self.bump();
        }
        text
    }

    fn quoted(&mut self) -> Result<String, ParseError> {
        let (line, column) = (self.line, self.column);
        self.bump();
        let mut text = String::new();
        loop {
            match self.bump() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escape()?),
                Some('\n') | None => {
                    let message = "a string has no end".to_string();
                    return Err(ParseError {
                        line,
                        column,
                        message,
                    });
                }
                Some(c) => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, ParseError> {
        match self.bump() {
            Some(c @ ('"' | '\\')) => Ok(c),
            Some('n') => Ok('\n'),
            Some('t') => Ok('\t'),
            Some('u') if self.bump() == Some('{') => {
                let code = self.take_while(|c| c.is_ascii_hexdigit());
                let c = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
                match (c, self.bump()) {
                    (Some(c), Some('}')) => Ok(c),
                    _ => self.error("a \\u escape must be \\u{hexadecimal digits} of a character"),
                }
            }
            _ => self.error("unknown escape in a string"),
        }
    }
}
