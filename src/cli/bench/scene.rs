//! What a load goes through: mailboxes, an exchange before them, and who sends to which.

use super::Bench;

/// Made before the load and taken away after it.
pub(super) struct Scene {
    pub(super) mailboxes: Vec<String>,
    pub(super) exchange: Option<Exchange>,
    pub(super) durable: bool,
    pub(super) stream: bool,
    lanes: Vec<Lane>,
}

/// Its bindings lead to the mailboxes in turn.
pub(super) struct Exchange {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) keys: Vec<String>,
}

/// One producer and those who get what it sends.
#[derive(Clone)]
pub(super) struct Lane {
    pub(super) target: Target,
    /// One consumer each.
    pub(super) mailboxes: Vec<String>,
}

/// Where messages are sent.
#[derive(Clone)]
pub(super) struct Target {
    /// Empty: the mailbox that the key names.
    pub(super) exchange: String,
    /// In turn.
    pub(super) keys: Vec<String>,
}

impl Scene {
    pub(super) fn of(bench: &Bench) -> Self {
        let name = format!("bench-{}", std::process::id());
        let count = bench.queues.or(bench.fanout).unwrap_or(1);
        let mailboxes: Vec<_> = match count {
            1 => vec![name.clone()],
            count => (0..count).map(|at| format!("{name}-{at}")).collect(),
        };
        let exchange = match (bench.fanout, bench.bindings) {
            (Some(_), _) => {
                Some(Exchange { name, kind: "fanout", keys: vec![String::new(); count as usize] })
            }
            (None, Some(bindings)) => {
                // Half of the patterns end in one word, half in any number of them.
                let pattern = |at| format!("bench.{at}.{}", if at % 2 == 0 { "*" } else { "#" });
                Some(Exchange { name, kind: "topic", keys: (0..bindings).map(pattern).collect() })
            }
            (None, None) => None,
        };
        let lanes = match &exchange {
            None => mailboxes.iter().map(|it| Lane::to(it)).collect(),
            Some(exchange) => vec![Lane {
                target: Target {
                    exchange: exchange.name.clone(),
                    keys: match bench.bindings {
                        Some(bindings) => (0..bindings).map(|at| format!("bench.{at}.x")).collect(),
                        None => vec![String::new()],
                    },
                },
                mailboxes: mailboxes.clone(),
            }],
        };
        let durable = !bench.transient || bench.stream;
        Self { mailboxes, exchange, durable, stream: bench.stream, lanes }
    }

    pub(super) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// Source, key and mailbox of each binding.
    pub(super) fn bindings(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.exchange.iter().flat_map(|exchange| {
            let mailboxes = self.mailboxes.iter().cycle();
            exchange.keys.iter().zip(mailboxes).map(|(key, to)| (&*exchange.name, &**key, &**to))
        })
    }
}

impl Lane {
    fn to(mailbox: &str) -> Self {
        let target = Target { exchange: String::new(), keys: vec![mailbox.to_owned()] };
        Self { target, mailboxes: vec![mailbox.to_owned()] }
    }
}

impl Target {
    /// The key of a message, by its number.
    pub(super) fn place(&self, number: u64) -> usize {
        (number % self.keys.len() as u64) as usize
    }
}
