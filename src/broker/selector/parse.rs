//! From text to expression, by recursive descent.
//!
//! ```text
//! or         = and {OR and}
//! and        = not {AND not}
//! not        = NOT not | condition
//! condition  = sum [compare sum | [NOT] BETWEEN sum AND sum | [NOT] IN (literal {, literal})
//!                  | [NOT] LIKE text [ESCAPE text] | IS [NOT] NULL]
//! sum        = product {(+ | -) product}
//! product    = sign {(* | /) sign}
//! sign       = (+ | -) sign | literal | identifier | ( or )
//! ```

use super::like::Like;
use super::{Comparison, Expression, Literal, Operator, Selector, SelectorError};

pub(super) fn selector(text: &str) -> Result<Expression, SelectorError> {
    if text.len() > Selector::LENGTH_MAX {
        return Err(SelectorError::TooLong);
    }
    let mut parser = Parser { text, at: 0, depth: 0 };
    let expression = parser.or()?;
    parser.skip_space();
    if parser.at < text.len() {
        return Err(parser.expected("an operator or the end"));
    }
    Ok(expression)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

/// Words that are no identifiers.
const RESERVED: [&str; 11] =
    ["and", "between", "escape", "false", "in", "is", "like", "not", "null", "or", "true"];

impl<'a> Parser<'a> {
    fn or(&mut self) -> Result<Expression, SelectorError> {
        let mut all = vec![self.and()?];
        while self.word("or") {
            all.push(self.and()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expression::Or(all) })
    }

    fn and(&mut self) -> Result<Expression, SelectorError> {
        let mut all = vec![self.not()?];
        while self.word("and") {
            all.push(self.not()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expression::And(all) })
    }

    fn not(&mut self) -> Result<Expression, SelectorError> {
        if !self.word("not") {
            return self.condition();
        }
        self.deeper(Self::not).map(|inner| Expression::Not(Box::new(inner)))
    }

    fn condition(&mut self) -> Result<Expression, SelectorError> {
        let left = Box::new(self.sum()?);
        for (sign, comparison) in [
            ("<>", Comparison::Unequal),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("=", Comparison::Equal),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ] {
            if self.sign(sign) {
                return Ok(Expression::Compare(left, comparison, Box::new(self.sum()?)));
            }
        }
        if self.word("is") {
            let not = self.word("not");
            self.need_word("null", "NULL")?;
            return Ok(negated(not, Expression::IsNull(left)));
        }
        let not = self.word("not");
        let condition = if self.word("between") {
            let low = self.sum()?;
            self.need_word("and", "AND")?;
            Expression::Between(Box::new([*left, low, self.sum()?]))
        } else if self.word("in") {
            self.need_sign("(", "'('")?;
            let mut list = vec![self.signed_literal()?];
            while self.sign(",") {
                list.push(self.signed_literal()?);
            }
            self.need_sign(")", "')'")?;
            Expression::In(left, list)
        } else if self.word("like") {
            let pattern = self.text_literal()?;
            let escape = if self.word("escape") { Some(self.character()?) } else { None };
            Expression::Like(left, Like::new(&pattern, escape))
        } else if not {
            return Err(self.expected("BETWEEN, IN or LIKE"));
        } else {
            return Ok(*left);
        };
        Ok(negated(not, condition))
    }

    fn sum(&mut self) -> Result<Expression, SelectorError> {
        self.chain(Self::product, [("+", Operator::Add), ("-", Operator::Subtract)])
    }

    fn product(&mut self) -> Result<Expression, SelectorError> {
        self.chain(Self::signed, [("*", Operator::Multiply), ("/", Operator::Divide)])
    }

    fn chain(
        &mut self,
        part: fn(&mut Self) -> Result<Expression, SelectorError>,
        operators: [(&str, Operator); 2],
    ) -> Result<Expression, SelectorError> {
        let first = part(self)?;
        let mut rest = Vec::new();
        while let Some((_, operator)) = operators.iter().find(|(sign, _)| self.sign(sign)) {
            rest.push((*operator, part(self)?));
        }
        Ok(if rest.is_empty() { first } else { Expression::Arithmetic(Box::new(first), rest) })
    }

    fn signed(&mut self) -> Result<Expression, SelectorError> {
        if self.sign("-") {
            return self.deeper(Self::signed).map(|inner| Expression::Negate(Box::new(inner)));
        }
        if self.sign("+") {
            return self.deeper(Self::signed);
        }
        if self.sign("(") {
            let inner = self.deeper(Self::or)?;
            self.need_sign(")", "')'")?;
            return Ok(inner);
        }
        if let Some(literal) = self.literal()? {
            return Ok(Expression::Literal(literal));
        }
        match self.identifier()? {
            Some(name) => Ok(Expression::Identifier(name)),
            None => Err(self.expected("a value")),
        }
    }

    fn deeper<T>(
        &mut self,
        parse: fn(&mut Self) -> Result<T, SelectorError>,
    ) -> Result<T, SelectorError> {
        if self.depth == Selector::DEPTH_MAX {
            return Err(SelectorError::TooDeep);
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn signed_literal(&mut self) -> Result<Literal, SelectorError> {
        let negative = self.sign("-");
        match (negative, self.literal()?) {
            (false, Some(literal)) => Ok(literal),
            (true, Some(Literal::Whole(number))) => Ok(Literal::Whole(-number)),
            (true, Some(Literal::Fraction(number))) => Ok(Literal::Fraction(-number)),
            _ => Err(self.expected("a literal")),
        }
    }

    fn literal(&mut self) -> Result<Option<Literal>, SelectorError> {
        if self.word("true") {
            return Ok(Some(Literal::Bool(true)));
        }
        if self.word("false") {
            return Ok(Some(Literal::Bool(false)));
        }
        if let Some(text) = self.quoted('\'')? {
            return Ok(Some(Literal::Text(text)));
        }
        self.number()
    }

    fn number(&mut self) -> Result<Option<Literal>, SelectorError> {
        self.skip_space();
        let rest = &self.text.as_bytes()[self.at..];
        let digits =
            |from: usize| rest[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let whole = digits(0);
        let mut end = whole;
        if rest.get(end) == Some(&b'.') {
            end += 1 + digits(end + 1);
        }
        if end == 0 || (end == 1 && whole == 0) {
            return Ok(None);
        }
        if matches!(rest.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(rest.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits(end + 1 + sign);
            if exponent == 0 {
                return Err(self.expected("a number"));
            }
            end += 1 + sign + exponent;
        }
        let text = &self.text[self.at..self.at + end];
        // Java's marks for the width of a number.
        let mark = rest.get(end).map(u8::to_ascii_lowercase);
        let literal = match mark {
            Some(b'f' | b'd') => text.parse().ok().map(Literal::Fraction),
            _ if end == whole => text.parse().ok().map(Literal::Whole),
            _ => text.parse().ok().map(Literal::Fraction),
        };
        let literal = literal.ok_or_else(|| self.expected("a number of 64 bits"))?;
        let marked = matches!(mark, Some(b'f' | b'd')) || (mark == Some(b'l') && end == whole);
        let after = end + usize::from(marked);
        if rest.get(after).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
            return Err(self.expected("a number"));
        }
        self.at += after;
        Ok(Some(literal))
    }

    fn text_literal(&mut self) -> Result<String, SelectorError> {
        match self.quoted('\'')? {
            Some(text) => Ok(text),
            None => Err(self.expected("a text in quotes")),
        }
    }

    fn character(&mut self) -> Result<char, SelectorError> {
        let from = self.at;
        let text = self.text_literal()?;
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) => Ok(character),
            _ => Err(SelectorError::Expected { expected: "one character in quotes", at: from }),
        }
    }

    /// Up to the closing quote; a doubled quote stands for itself.
    fn quoted(&mut self, quote: char) -> Result<Option<String>, SelectorError> {
        self.skip_space();
        let Some(inside) = self.text[self.at..].strip_prefix(quote) else { return Ok(None) };
        let mut text = String::new();
        let mut characters = inside.char_indices().peekable();
        while let Some((at, character)) = characters.next() {
            if character != quote {
                text.push(character);
            } else if characters.next_if(|(_, next)| *next == quote).is_some() {
                text.push(quote);
            } else {
                self.at += 1 + at + 1;
                return Ok(Some(text));
            }
        }
        Err(self.expected("a closing quote"))
    }

    /// A Java identifier; in double quotes any name.
    fn identifier(&mut self) -> Result<Option<String>, SelectorError> {
        if let Some(name) = self.quoted('"')? {
            return Ok(Some(name));
        }
        let name = self.peek_word();
        if name.is_empty() || RESERVED.iter().any(|word| word.eq_ignore_ascii_case(name)) {
            return Ok(None);
        }
        self.at += name.len();
        Ok(Some(name.to_owned()))
    }

    fn peek_word(&mut self) -> &'a str {
        self.skip_space();
        let rest = &self.text[self.at..];
        if rest.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
            return "";
        }
        let inside = |it: char| it.is_alphanumeric() || matches!(it, '_' | '$' | '.' | ':');
        let end = rest.find(|it| !inside(it)).unwrap_or(rest.len());
        &rest[..end]
    }

    fn word(&mut self, word: &str) -> bool {
        let here = self.peek_word();
        let is_it = here.eq_ignore_ascii_case(word);
        if is_it {
            self.at += here.len();
        }
        is_it
    }

    fn need_word(&mut self, word: &str, expected: &'static str) -> Result<(), SelectorError> {
        if self.word(word) { Ok(()) } else { Err(self.expected(expected)) }
    }

    fn sign(&mut self, sign: &str) -> bool {
        self.skip_space();
        let is_it = self.text[self.at..].starts_with(sign);
        if is_it {
            self.at += sign.len();
        }
        is_it
    }

    fn need_sign(&mut self, sign: &str, expected: &'static str) -> Result<(), SelectorError> {
        if self.sign(sign) { Ok(()) } else { Err(self.expected(expected)) }
    }

    fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn expected(&self, expected: &'static str) -> SelectorError {
        SelectorError::Expected { expected, at: self.at }
    }
}

fn negated(not: bool, condition: Expression) -> Expression {
    if not { Expression::Not(Box::new(condition)) } else { condition }
}
