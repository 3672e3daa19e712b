//! `topic`: keys are words between dots; in a binding `*` is one word and `#` any number of them.
//!
//! The patterns of an exchange are one tree of words, walked once for a message by a set of nodes that advances
//! word by word. The cost is at most words × nodes whatever the patterns are, and does not depend on how many
//! patterns there are that have nothing to do with the key.

use std::mem;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::index::Index;
use super::random::mix;
use super::target::{TargetId, TargetSet};
use crate::broker::Refusal;

/// What a new binding may ask for, as RabbitMQ bounds it from 4.3 on. What was bound before stays.
const HASHES_MAX: usize = 2;
const WORDS_MAX: usize = 128;

#[derive(Debug)]
pub(super) struct Topic {
    seed: u64,
    words: Words,
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    /// From a node by a literal word to its child.
    edges: Index,
    /// Nodes that the words so far lead to, each once.
    active: Vec<NodeId>,
    next: Vec<NodeId>,
    /// Counts the sets of nodes built so far.
    round: u64,
}

type NodeId = u32;
type WordId = u32;

const ROOT: NodeId = 0;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    parent: NodeId,
    step: Step,
    star: NodeId,
    hash: NodeId,
    /// How many literal children there are in `edges`.
    literals: u32,
    /// One of them, found without a look into `edges`: most nodes have no other.
    near: (WordId, NodeId),
    /// The last set of nodes that this one was put into.
    seen: u64,
    targets: TargetSet,
}

/// How a pattern goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Literal(WordId),
    Star,
    Hash,
}

impl Topic {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            words: Words::default(),
            nodes: vec![Node::new(NONE, Step::Star)],
            free: Vec::new(),
            edges: Index::default(),
            active: Vec::new(),
            next: Vec::new(),
            round: 0,
        }
    }

    /// Whether a new binding may have this key.
    pub(super) fn check_key(key: &[u8]) -> Result<(), Refusal> {
        let hashes = words(key).filter(|word| *word == b"#").count();
        let (found, what, most) = match words(key).count() {
            count if count > WORDS_MAX => (count, "words", WORDS_MAX),
            _ if hashes > HASHES_MAX => (hashes, "'#' wildcards", HASHES_MAX),
            _ => return Ok(()),
        };
        let key = String::from_utf8_lossy(key);
        let text =
            format!("invalid binding key '{key}': {found} {what}, at most {most} are allowed");
        Err(Refusal::Precondition(text))
    }

    pub(super) fn bind(&mut self, target: TargetId, key: &[u8]) {
        let mut at = ROOT;
        for part in parts(key) {
            let step = match part {
                Part::Word(word) => Step::Literal(self.words.hold(word, self.seed)),
                Part::Star => Step::Star,
                Part::Hash => Step::Hash,
            };
            at = match self.child(at, step) {
                Some(child) => {
                    if let Step::Literal(word) = step {
                        self.words.release(word, self.seed);
                    }
                    child
                }
                None => self.grow(at, step),
            };
        }
        self.nodes[at as usize].targets.add(target);
    }

    pub(super) fn unbind(&mut self, target: TargetId, key: &[u8]) {
        let mut at = ROOT;
        for part in parts(key) {
            let step = match part {
                Part::Word(word) => match self.words.find(word, self.seed) {
                    Some(word) => Step::Literal(word),
                    None => return,
                },
                Part::Star => Step::Star,
                Part::Hash => Step::Hash,
            };
            match self.child(at, step) {
                Some(child) => at = child,
                None => return,
            }
        }
        self.nodes[at as usize].targets.remove(target);
        while at != ROOT && self.nodes[at as usize].is_bare() {
            at = self.prune(at);
        }
    }

    pub(super) fn route(&mut self, key: &[u8], found: &mut impl FnMut(TargetId)) {
        self.round += 1;
        self.active.clear();
        enter(&mut self.nodes, &mut self.active, self.round, ROOT);
        for word in words(key) {
            if self.active.is_empty() {
                return;
            }
            self.round += 1;
            self.next.clear();
            let word = self.words.find(word, self.seed).unwrap_or(NONE);
            for &at in &self.active {
                let node = &self.nodes[at as usize];
                let star = node.star;
                let literal = match node.near {
                    _ if word == NONE || node.literals == 0 => None,
                    (near, child) if near == word => Some(child),
                    (near, _) if node.literals == 1 && near != NONE => None,
                    _ => find_edge(&self.edges, &self.nodes, self.seed, at, word),
                };
                if node.step == Step::Hash {
                    enter(&mut self.nodes, &mut self.next, self.round, at);
                }
                if star != NONE {
                    enter(&mut self.nodes, &mut self.next, self.round, star);
                }
                if let Some(literal) = literal {
                    enter(&mut self.nodes, &mut self.next, self.round, literal);
                }
            }
            mem::swap(&mut self.active, &mut self.next);
        }
        for &at in &self.active {
            self.nodes[at as usize].targets.iter().for_each(&mut *found);
        }
    }

    fn child(&self, at: NodeId, step: Step) -> Option<NodeId> {
        let node = &self.nodes[at as usize];
        match step {
            Step::Star => Some(node.star).filter(|child| *child != NONE),
            Step::Hash => Some(node.hash).filter(|child| *child != NONE),
            Step::Literal(word) => find_edge(&self.edges, &self.nodes, self.seed, at, word),
        }
    }

    /// A new child; a literal step's hold on its word passes to it.
    fn grow(&mut self, at: NodeId, step: Step) -> NodeId {
        let node = Node::new(at, step);
        let child = match self.free.pop() {
            Some(child) => {
                self.nodes[child as usize] = node;
                child
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        };
        let parent = &mut self.nodes[at as usize];
        match step {
            Step::Star => parent.star = child,
            Step::Hash => parent.hash = child,
            Step::Literal(word) => {
                parent.literals += 1;
                if parent.near.0 == NONE {
                    parent.near = (word, child);
                }
                self.edges.insert(edge_hash(self.seed, at, word), child);
            }
        }
        child
    }

    /// Takes a node away that nothing needs, and tells its parent.
    fn prune(&mut self, at: NodeId) -> NodeId {
        let Node { parent: above, step, .. } = self.nodes[at as usize];
        let parent = &mut self.nodes[above as usize];
        match step {
            Step::Star => parent.star = NONE,
            Step::Hash => parent.hash = NONE,
            Step::Literal(word) => {
                parent.literals -= 1;
                if parent.near.0 == word {
                    parent.near = (NONE, NONE);
                }
                self.edges.remove(edge_hash(self.seed, above, word), at);
                self.words.release(word, self.seed);
            }
        }
        self.free.push(at);
        above
    }
}

/// Puts a node into a set, and the `#` below it, which may stand for no word at all.
fn enter(nodes: &mut [Node], set: &mut Vec<NodeId>, round: u64, mut at: NodeId) {
    while at != NONE {
        let node = &mut nodes[at as usize];
        if node.seen == round {
            return;
        }
        node.seen = round;
        set.push(at);
        at = node.hash;
    }
}

fn find_edge(edges: &Index, nodes: &[Node], seed: u64, at: NodeId, word: WordId) -> Option<NodeId> {
    edges.find(edge_hash(seed, at, word), |child| {
        let child = &nodes[child as usize];
        child.parent == at && child.step == Step::Literal(word)
    })
}

fn edge_hash(seed: u64, at: NodeId, word: WordId) -> u64 {
    mix(seed ^ (u64::from(at) << 32 | u64::from(word)))
}

impl Node {
    fn new(parent: NodeId, step: Step) -> Self {
        Self {
            parent,
            step,
            star: NONE,
            hash: NONE,
            literals: 0,
            near: (NONE, NONE),
            seen: 0,
            targets: TargetSet::default(),
        }
    }

    fn is_bare(&self) -> bool {
        self.targets.is_empty() && self.literals == 0 && self.star == NONE && self.hash == NONE
    }
}

/// The literal words of an exchange's patterns, numbered.
#[derive(Debug, Default)]
struct Words {
    index: Index,
    /// The word, and how many nodes are reached by it.
    words: Vec<(Bytes, u32)>,
    free: Vec<WordId>,
}

impl Words {
    fn find(&self, word: &[u8], seed: u64) -> Option<WordId> {
        self.index.find(xxh3_64_with_seed(word, seed), |id| self.words[id as usize].0 == word)
    }

    fn hold(&mut self, word: &[u8], seed: u64) -> WordId {
        if let Some(id) = self.find(word, seed) {
            self.words[id as usize].1 += 1;
            return id;
        }
        let entry = (Bytes::copy_from_slice(word), 1);
        let id = match self.free.pop() {
            Some(id) => {
                self.words[id as usize] = entry;
                id
            }
            None => {
                self.words.push(entry);
                self.words.len() as u32 - 1
            }
        };
        self.index.insert(xxh3_64_with_seed(word, seed), id);
        id
    }

    fn release(&mut self, id: WordId, seed: u64) {
        let entry = &mut self.words[id as usize];
        entry.1 -= 1;
        if entry.1 == 0 {
            self.index.remove(xxh3_64_with_seed(&entry.0, seed), id);
            entry.0 = Bytes::new();
            self.free.push(id);
        }
    }
}

/// The words of a key. The empty key has none (as RabbitMQ splits it): `*` does not match it, `#` does.
fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    key.split(|byte| *byte == b'.').filter(move |_| !key.is_empty())
}

enum Part<'a> {
    Word(&'a [u8]),
    Star,
    Hash,
}

/// The parts of a pattern, with each run of wildcards in one order (`#.*` is `*.#`, `#.#` is `#`).
fn parts(key: &[u8]) -> impl Iterator<Item = Part<'_>> {
    let mut words = words(key).peekable();
    let mut hash = false;
    std::iter::from_fn(move || {
        loop {
            match words.peek() {
                Some(&b"#") => {
                    words.next();
                    hash = true;
                }
                Some(&b"*") => {
                    words.next();
                    return Some(Part::Star);
                }
                _ if mem::take(&mut hash) => return Some(Part::Hash),
                _ => return words.next().map(Part::Word),
            }
        }
    })
}
