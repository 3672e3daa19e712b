//! LIKE: `%` is any text, `_` is one character.

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Like(Vec<Part>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Any,
    One,
    Exactly(char),
}

impl Like {
    /// After `escape` a character stands for itself.
    pub(super) fn new(pattern: &str, escape: Option<char>) -> Self {
        let mut parts = Vec::new();
        let mut characters = pattern.chars();
        while let Some(character) = characters.next() {
            parts.push(match character {
                it if Some(it) == escape => Part::Exactly(characters.next().unwrap_or(it)),
                '%' => Part::Any,
                '_' => Part::One,
                it => Part::Exactly(it),
            });
        }
        Self(parts)
    }

    /// At most text × pattern steps: only the last `%` is ever tried again.
    pub(super) fn matches(&self, text: &str) -> bool {
        let (mut rest, mut at) = (text.chars(), 0);
        let mut retry = None;
        loop {
            let here = rest.clone();
            match (self.0.get(at), rest.next()) {
                (Some(Part::Any), _) => {
                    rest = here.clone();
                    at += 1;
                    retry = Some((here, at));
                    continue;
                }
                (None, None) => return true,
                (Some(Part::One), Some(_)) => {
                    at += 1;
                    continue;
                }
                (Some(Part::Exactly(wanted)), Some(given)) if *wanted == given => {
                    at += 1;
                    continue;
                }
                _ => {}
            }
            // The last `%` takes one character more.
            let Some((from, part)) = &mut retry else { return false };
            if from.next().is_none() {
                return false;
            }
            (rest, at) = (from.clone(), *part);
        }
    }
}
