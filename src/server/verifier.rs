//! Who may log in: checks few passwords at a time, remembers those that were right, and slows down whoever guesses.
//!
//! ```text
//! remembered ───────────────────────────────────────────────> yes
//! the same login under way ─────────────────> its answer
//! right some time ago ──────────────────────> checked again
//! anything else ─throttle─> a place to wait ─> checked, two at a time
//! ```

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use super::password::accepts;
use super::throttle::{Guess, Origin, Patience, Throttle};
use crate::sessions::Verify;

/// Each check takes 19 MiB and a core for tens of milliseconds.
const CHECKS_AT_ONCE: usize = 2;
/// Further logins are refused at once.
const CHECKS_WAITING_MAX: usize = 256;
/// How long a login is not checked again.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);
/// How long a login that was right is not taken for a guess. Its mark cannot be made without the password.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 3600);
const REMEMBERED_MAX: usize = 10_000;
/// Whoever guessed too often waits for so long, and is checked then if there is room for a failure.
const THROTTLED_DELAY: Duration = Duration::from_secs(3);

pub(super) struct Verifier {
    /// Makes a remembered login useless outside of this process.
    key: [u8; 32],
    /// When they were checked last.
    remembered: Mutex<HashMap<Mark, Instant>>,
    under_way: Mutex<HashMap<Mark, watch::Receiver<Option<bool>>>>,
    throttle: Mutex<Throttle>,
    checks: Semaphore,
    waiting: Semaphore,
}

/// Stands for user, password and stored hash together, so a changed password is not remembered.
type Mark = [u8; 32];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// It was checked a moment ago.
    Fresh,
    /// It was right, and is to be checked again.
    Known,
    Nothing,
}

impl Verifier {
    /// Fails when the machine has no randomness to give.
    pub(super) fn new(patience: Patience) -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self {
            key,
            remembered: Mutex::default(),
            under_way: Mutex::default(),
            throttle: Mutex::new(Throttle::new(patience)),
            checks: Semaphore::new(CHECKS_AT_ONCE),
            waiting: Semaphore::new(CHECKS_WAITING_MAX),
        })
    }

    pub(super) async fn check(&self, verify: Verify, origin: Origin) -> bool {
        let mark = self.mark(&verify);
        loop {
            let memory = self.memory(&mark);
            if memory == Memory::Fresh {
                return true;
            }
            match self.join(mark) {
                // Many programs come back at once after a break: one check is enough for all.
                Join::Follow(mut answer) => {
                    if let Ok(answer) = answer.wait_for(Option::is_some).await {
                        return answer.unwrap_or(false);
                    }
                    // Whoever was ahead went away.
                }
                Join::Lead(lead) => {
                    let accepted = self.lead(&verify, origin, memory).await;
                    if accepted {
                        self.remember(mark);
                    }
                    lead.answer.send_replace(Some(accepted));
                    return accepted;
                }
            }
        }
    }

    async fn lead(&self, verify: &Verify, origin: Origin, memory: Memory) -> bool {
        if memory == Memory::Known {
            return self.checked(verify).await;
        }
        // A table of the system is read for it.
        let Ok(source) = spawn_blocking(move || origin.source()).await else { return false };
        let guess = (verify.user.clone(), source);
        if !self.take(&guess) {
            sleep(THROTTLED_DELAY).await;
            if !self.take(&guess) {
                return false;
            }
        }
        let Ok(place) = self.waiting.try_acquire() else {
            self.throttle().give_back(&guess);
            tracing::warn!("a login was refused: {CHECKS_WAITING_MAX} others wait to be checked");
            return false;
        };
        let accepted = self.checked(verify).await;
        drop(place);
        let mut throttle = self.throttle();
        if accepted {
            throttle.give_back(&guess);
        } else if throttle.is_exhausted(&guess, Instant::now()) {
            let (user, source) = guess;
            tracing::warn!(?user, ?source, "too many failed logins: further ones have to wait");
        }
        accepted
    }

    async fn checked(&self, verify: &Verify) -> bool {
        let Ok(_turn) = self.checks.acquire().await else { return false };
        let password = Zeroizing::new(verify.password.clone());
        let credential = verify.credential.clone();
        let accepted = spawn_blocking(move || accepts(credential.as_ref(), &password)).await;
        accepted.unwrap_or(false)
    }

    fn take(&self, guess: &Guess) -> bool {
        self.throttle().take(guess, Instant::now())
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        lock(&self.throttle)
    }

    fn mark(&self, verify: &Verify) -> Mark {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("any key size will do");
        let hash = verify.credential.as_ref().map_or("", |it| &it.password_hash);
        for part in [verify.user.as_bytes(), &verify.password, hash.as_bytes()] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    fn memory(&self, mark: &Mark) -> Memory {
        match lock(&self.remembered).get(mark).map(Instant::elapsed) {
            Some(ago) if ago < REMEMBERED_FOR => Memory::Fresh,
            Some(ago) if ago < KNOWN_FOR => Memory::Known,
            _ => Memory::Nothing,
        }
    }

    fn remember(&self, mark: Mark) {
        let mut remembered = lock(&self.remembered);
        for period in [KNOWN_FOR, REMEMBERED_FOR] {
            if remembered.len() >= REMEMBERED_MAX {
                remembered.retain(|_, since| since.elapsed() < period);
            }
        }
        if remembered.len() < REMEMBERED_MAX {
            remembered.insert(mark, Instant::now());
        }
    }

    fn join(&self, mark: Mark) -> Join<'_> {
        let mut under_way = lock(&self.under_way);
        if let Some(answer) = under_way.get(&mark) {
            return Join::Follow(answer.clone());
        }
        let (answer, follow) = watch::channel(None);
        under_way.insert(mark, follow);
        Join::Lead(Lead { verifier: self, mark, answer })
    }
}

/// Checks a login, or waits for somebody who checks the same one.
enum Join<'a> {
    Lead(Lead<'a>),
    Follow(watch::Receiver<Option<bool>>),
}

struct Lead<'a> {
    verifier: &'a Verifier,
    mark: Mark,
    answer: watch::Sender<Option<bool>>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        lock(&self.verifier.under_way).remove(&self.mark);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here can leave the state half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use super::*;
    use crate::broker::Credential;
    use crate::server::password::hash;

    const PATIENCE: Patience = Patience { failures_max: 10, failures_per_minute: 5 };

    fn verifier() -> Verifier {
        Verifier::new(PATIENCE).unwrap()
    }

    fn from(host: u8) -> Origin {
        let local = SocketAddr::from(([10, 0, 0, 9], 5672));
        Origin { peer: ([10, 0, 0, host], 50_000).into(), local }
    }

    fn anna(password: &str) -> Credential {
        Credential {
            password_hash: hash(password.as_bytes()).unwrap(),
            hashing: "argon2id".into(),
            ..Credential::default()
        }
    }

    fn verify(password: &str, credential: &Credential) -> Verify {
        Verify {
            user: "anna".into(),
            password: password.into(),
            credential: Some(credential.clone()),
        }
    }

    #[tokio::test]
    async fn verified_login_is_remembered_until_the_password_changes() {
        let (verifier, known) = (verifier(), anna("secret"));
        assert!(verifier.check(verify("secret", &known), from(1)).await);
        let mark = verifier.mark(&verify("secret", &known));
        assert_eq!(verifier.memory(&mark), Memory::Fresh);
        assert!(!verifier.check(verify("wrong", &known), from(1)).await);
        let changed = anna("other");
        assert!(!verifier.check(verify("secret", &changed), from(1)).await);
        assert_eq!(lock(&verifier.remembered).len(), 1);
        assert!(lock(&verifier.under_way).is_empty());
    }

    #[tokio::test]
    async fn unknown_user_is_refused() {
        let verify = Verify { user: "x".into(), password: "x".into(), credential: None };
        assert!(!verifier().check(verify, from(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_guesses_waits_and_others_do_not() {
        let (verifier, known) = (verifier(), anna("secret"));
        let started = Instant::now();
        for guess in 0..10 {
            assert!(!verifier.check(verify(&guess.to_string(), &known), from(1)).await);
        }
        assert!(started.elapsed() < THROTTLED_DELAY);
        // Not even the right password, which is a guess as long as nobody knows that it is right.
        assert!(!verifier.check(verify("secret", &known), from(1)).await);
        assert!(started.elapsed() >= THROTTLED_DELAY);
        let started = Instant::now();
        assert!(verifier.check(verify("secret", &known), from(2)).await);
        assert!(started.elapsed() < THROTTLED_DELAY);
        // Who has the password now comes from everywhere.
        assert!(verifier.check(verify("secret", &known), from(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn known_login_gets_past_a_guesser_after_its_time_too() {
        let (verifier, known) = (verifier(), anna("secret"));
        assert!(verifier.check(verify("secret", &known), from(1)).await);
        tokio::time::advance(REMEMBERED_FOR).await;
        while verifier.take(&("anna".into(), from(1).source())) {}
        let started = Instant::now();
        assert!(verifier.check(verify("secret", &known), from(1)).await);
        assert!(started.elapsed() < THROTTLED_DELAY);
        tokio::time::advance(KNOWN_FOR).await;
        while verifier.take(&("anna".into(), from(1).source())) {}
        assert!(!verifier.check(verify("secret", &known), from(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn failure_that_waited_is_checked_when_there_is_room_for_it() {
        let (verifier, known) = (verifier(), anna("secret"));
        while verifier.take(&("anna".into(), from(1).source())) {}
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(verifier.check(verify("secret", &known), from(1)).await);
    }

    #[tokio::test]
    async fn many_logins_of_one_user_are_checked_once() {
        let (verifier, known) = (Arc::new(verifier()), anna("secret"));
        let checks = (0..1000).map(|_| {
            let (verifier, verify) = (verifier.clone(), verify("secret", &known));
            tokio::spawn(async move { verifier.check(verify, from(1)).await })
        });
        let started = std::time::Instant::now();
        for check in checks.collect::<Vec<_>>() {
            assert!(check.await.unwrap());
        }
        // A thousand checks would take half a minute, and most would not be let in to wait.
        assert!(started.elapsed() < Duration::from_secs(10));
        assert!(lock(&verifier.under_way).is_empty());
    }

    #[tokio::test]
    async fn follower_goes_on_alone_when_the_one_ahead_goes_away() {
        let (verifier, known) = (verifier(), anna("secret"));
        let mark = verifier.mark(&verify("secret", &known));
        let lead = verifier.join(mark);
        let follow = verifier.check(verify("secret", &known), from(1));
        tokio::pin!(follow);
        assert!(futures_util::poll!(&mut follow).is_pending());
        drop(lead);
        assert!(follow.await);
    }
}
