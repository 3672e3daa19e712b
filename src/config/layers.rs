//! Puts the layers of settings on top of each other, and says precisely what is wrong with one.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::sections::Config;

/// Environment variables are this, the section and the key, with `__` between them.
const ENVIRONMENT_PREFIX: &str = "PILLARBOX__";

/// Where a setting was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File { path: PathBuf, line: usize },
    Environment(String),
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// Every way the settings can be wrong.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("{}: {error}", path.display())]
    NotToml { path: PathBuf, error: Box<toml::de::Error> },
    #[error("{origin}: there is no setting '{key}'{}", hint(nearest))]
    Unknown { origin: Source, key: String, nearest: Option<String> },
    #[error("{origin}: {key} = \"{value}\": the value {reason}")]
    Invalid { origin: Source, key: String, value: String, reason: String },
    #[error("{origin}: {key} must be a text, a whole number or true or false")]
    NotSimple { origin: Source, key: String },
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |it| format!("; did you mean '{it}'?"))
}

impl Config {
    /// Reads the file, if one is named, then the environment, then the flags: name of the flag, key, value.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (&'static str, &'static str, String)>,
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigError::Unreadable { path: path.into(), error })?;
            config.add_file(path, &text)?;
        }
        for (name, value) in environment {
            let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            let key = key.to_ascii_lowercase().replace("__", ".");
            config.add(&key, &value, &Source::Environment(name))?;
        }
        for (flag, key, value) in flags {
            config.add(key, &value, &Source::Flag(flag))?;
        }
        Ok(config)
    }

    pub(super) fn add_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let table = DeTable::parse(text).map_err(|mut error| {
            error.set_input(Some(text));
            ConfigError::NotToml { path: path.into(), error: Box::new(error) }
        })?;
        self.add_table("", table.get_ref(), &|offset| Source::File {
            path: path.into(),
            line: text[..offset].bytes().filter(|byte| *byte == b'\n').count() + 1,
        })
    }

    fn add_table(
        &mut self,
        prefix: &str,
        table: &DeTable<'_>,
        origin: &dyn Fn(usize) -> Source,
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let origin_here = || origin(name.span().start);
            match value.get_ref() {
                // Tables in tables are keys nobody knows, and are told so one by one.
                DeValue::Table(inner) if inner.is_empty() && !Self::has_section(&key) => {
                    return Err(unknown(&key, origin_here()));
                }
                DeValue::Table(inner) => self.add_table(&format!("{key}."), inner, origin)?,
                DeValue::String(text) => self.add(&key, text, &origin_here())?,
                DeValue::Integer(number) => {
                    self.add(&key, &number.to_string(), &origin_here())?;
                }
                DeValue::Boolean(yes) => self.add(&key, &yes.to_string(), &origin_here())?,
                DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) => {
                    return Err(ConfigError::NotSimple { origin: origin_here(), key });
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &str, text: &str, origin: &Source) -> Result<(), ConfigError> {
        let (section, key) = path.split_once('.').unwrap_or((path, ""));
        match self.set(section, key, text) {
            None => Err(unknown(path, origin.clone())),
            Some(Ok(())) => Ok(()),
            Some(Err(reason)) => Err(ConfigError::Invalid {
                origin: origin.clone(),
                key: path.into(),
                value: text.into(),
                reason,
            }),
        }
    }

    fn has_section(name: &str) -> bool {
        Self::SECTIONS.iter().any(|section| section.name == name)
    }
}

fn unknown(key: &str, origin: Source) -> ConfigError {
    let known = Config::SECTIONS.iter().flat_map(|section| {
        section.keys.iter().map(move |known| format!("{}.{}", section.name, known.name))
    });
    // A right name in the wrong section is nearer than any misspelling.
    let last = key.rsplit('.').next().unwrap_or(key);
    let nearest = known
        .map(|known| {
            let same = known.rsplit('.').next() == Some(last);
            (if same { 0 } else { distance(key, &known) }, known)
        })
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 2)
        .map(|(_, known)| known);
    ConfigError::Unknown { origin, key: key.into(), nearest }
}

/// Insertions, deletions and replacements between two words.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, a) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}
