//! What may stand behind the question mark of a list: which page, which names, in which order, which columns.

use std::cmp::Ordering;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::Fault;

const PAGE_SIZE: usize = 100;
const PAGE_SIZE_MAX: usize = 500;
/// Longest pattern of names, in bytes.
const PATTERN_MAX: usize = 1000;
const PATTERN_SIZE_MAX: usize = 1 << 20;

/// A request's parameters, decoded.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

/// Which part of a list is wanted.
#[derive(Clone, Debug)]
pub struct Selection {
    page: Option<Page>,
    name: Option<Names>,
    sort: Option<Vec<String>>,
    reverse: bool,
    columns: Vec<Vec<String>>,
}

#[derive(Clone, Copy, Debug)]
struct Page {
    number: usize,
    size: usize,
}

impl Page {
    fn numbers(self, total: usize, filtered: usize, shown: usize) -> Map<String, Value> {
        let numbers = [
            ("total_count", total),
            ("item_count", shown),
            ("filtered_count", filtered),
            ("page", self.number),
            ("page_size", self.size),
            ("page_count", filtered.div_ceil(self.size).max(1)),
        ];
        numbers.into_iter().map(|(name, number)| (name.into(), number.into())).collect()
    }
}

#[derive(Clone, Debug)]
enum Names {
    /// Part of the name, in any case of letters.
    Part(String),
    Pattern(Regex),
}

impl Query {
    /// Reads what stands behind the question mark.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let mut values = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| super::routes::decode(&text.replace('+', " "));
            values.push((decode(name)?, decode(value)?));
        }
        Ok(Self(values))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).last()
    }

    /// All values of a parameter that stands several times.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    pub fn is_true(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    pub fn number(&self, name: &str) -> Result<Option<usize>, Fault> {
        let Some(text) = self.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        let number: Option<u32> = text.parse().ok().filter(|number| *number > 0);
        let wrong = || Fault::bad_request(format!("{name} must be a positive number: '{text}'"));
        number.map(|number| Some(number as usize)).ok_or_else(wrong)
    }

    pub fn selection(&self) -> Result<Selection, Fault> {
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        let number = self.number("page")?;
        let size = self.number("page_size")?.unwrap_or(PAGE_SIZE).min(PAGE_SIZE_MAX);
        let name = match self.get("name").filter(|name| !name.is_empty()) {
            None => None,
            Some(name) if self.is_true("use_regex") => Some(Names::Pattern(pattern(name)?)),
            Some(name) => Some(Names::Part(name.to_lowercase())),
        };
        let columns = self.get("columns").unwrap_or_default();
        Ok(Selection {
            page: number.map(|number| Page { number, size }),
            name,
            sort: self.get("sort").filter(|sort| !sort.is_empty()).map(path),
            reverse: self.is_true("sort_reverse"),
            columns: columns.split(',').filter(|it| !it.is_empty()).map(path).collect(),
        })
    }
}

fn pattern(text: &str) -> Result<Regex, Fault> {
    if text.len() > PATTERN_MAX {
        return Err(Fault::bad_request(format!("a pattern has at most {PATTERN_MAX} bytes")));
    }
    let built = RegexBuilder::new(text)
        .case_insensitive(true)
        .size_limit(PATTERN_SIZE_MAX)
        .nest_limit(64)
        .build();
    built.map_err(|error| Fault::bad_request(format!("invalid regular expression: {error}")))
}

impl Selection {
    /// Whether a thing of this name is in the list.
    pub fn takes(&self, name: &str) -> bool {
        match &self.name {
            None => true,
            Some(Names::Part(part)) => name.to_lowercase().contains(part),
            Some(Names::Pattern(pattern)) => pattern.is_match(name),
        }
    }

    /// The part of `items` that is wanted, as JSON. Only what is shown is made into JSON, where the order does not
    /// depend on more than the name.
    pub fn list<T>(
        &self,
        items: Vec<T>,
        name: impl Fn(&T) -> &str,
        json: impl FnMut(T) -> Value,
    ) -> Result<Value, Fault> {
        let total = items.len();
        let items: Vec<T> = items.into_iter().filter(|item| self.takes(name(item))).collect();
        let filtered = items.len();
        let mut rows: Vec<Value> = if self.is_by_name() {
            self.cut(self.by_name(items, name))?.into_iter().map(json).collect()
        } else {
            let rows: Vec<Value> = items.into_iter().map(json).collect();
            let keys = rows.iter().map(|row| self.key(row)).collect();
            self.cut(self.by_keys(rows, keys))?
        };
        if !self.columns.is_empty() {
            rows.iter_mut().for_each(|row| *row = self.only_columns(row));
        }
        let Some(page) = self.page else { return Ok(Value::Array(rows)) };
        let mut answer = page.numbers(total, filtered, rows.len());
        answer.insert("items".into(), Value::Array(rows));
        Ok(Value::Object(answer))
    }

    /// Whether the order of a list depends on no more than names.
    pub fn is_by_name(&self) -> bool {
        self.sort.as_ref().is_none_or(|path| path.len() == 1 && path[0] == "name")
    }

    pub fn by_name<T>(&self, mut items: Vec<T>, name: impl Fn(&T) -> &str) -> Vec<T> {
        if self.sort.is_some() {
            items.sort_by(|a, b| name(a).cmp(name(b)));
        }
        if self.reverse {
            items.reverse();
        }
        items
    }

    /// The column that a list is ordered by, where it is one of the row itself.
    pub fn column(&self) -> Option<&str> {
        match self.sort.as_deref()? {
            [column] => Some(column),
            _ => None,
        }
    }

    /// What a row is ordered by.
    pub fn key(&self, row: &Value) -> Option<Value> {
        find(row, self.sort.as_deref()?).cloned()
    }

    /// A key belongs to each item.
    pub fn by_keys<T>(&self, items: Vec<T>, keys: Vec<Option<Value>>) -> Vec<T> {
        let mut keyed: Vec<(Option<Value>, T)> = keys.into_iter().zip(items).collect();
        keyed.sort_by(|(a, _), (b, _)| order(a.as_ref(), b.as_ref()));
        if self.reverse {
            keyed.reverse();
        }
        keyed.into_iter().map(|(_, item)| item).collect()
    }

    /// What stands before and behind the rows of a list.
    pub fn around(&self, total: usize, filtered: usize, shown: usize) -> (String, String) {
        let Some(page) = self.page else { return ("[".into(), "]".into()) };
        let numbers = Value::Object(page.numbers(total, filtered, shown)).to_string();
        let head = numbers.strip_suffix('}').unwrap_or_default();
        (format!("{head},\"items\":["), "]}".into())
    }

    /// One thing, with the columns that are wanted.
    pub fn one(&self, item: Value) -> Value {
        if self.columns.is_empty() { item } else { self.only_columns(&item) }
    }

    /// The page that is wanted.
    pub fn cut<T>(&self, items: Vec<T>) -> Result<Vec<T>, Fault> {
        let Some(Page { number, size }) = self.page else { return Ok(items) };
        let start = (number - 1).saturating_mul(size);
        if start >= items.len() && number > 1 {
            return Err(Fault::bad_request(format!("page out of range: {number}")));
        }
        Ok(items.into_iter().skip(start).take(size).collect())
    }

    fn only_columns(&self, row: &Value) -> Value {
        let mut object = Map::new();
        for path in &self.columns {
            if let Some(value) = find(row, path) {
                put(&mut object, path, value);
            }
        }
        Value::Object(object)
    }
}

/// At its place in objects inside objects.
fn put(object: &mut Map<String, Value>, path: &[String], value: &Value) {
    match path {
        [] => {}
        [last] => {
            object.insert(last.clone(), value.clone());
        }
        [first, rest @ ..] => {
            let inner = object.entry(first).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

fn find<'a>(row: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(row, |value, name| value.get(name))
}

/// What is missing comes first, then truth, numbers, and texts.
fn order(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    fn rank(value: Option<&Value>) -> u8 {
        match value {
            None | Some(Value::Null) => 0,
            Some(Value::Bool(_)) => 1,
            Some(Value::Number(_)) => 2,
            Some(Value::String(_)) => 3,
            Some(_) => 4,
        }
    }
    match (a, b) {
        (Some(Value::Bool(a)), Some(Value::Bool(b))) => a.cmp(b),
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Some(Value::String(a)), Some(Value::String(b))) => a.cmp(b),
        _ => rank(a).cmp(&rank(b)),
    }
}
