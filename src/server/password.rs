//! Passwords and their hashes. Slow by design.

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use crate::broker::Credential;

const SALT_SIZE: usize = 4;
/// What an unknown user is checked against: the hash of nothing anybody knows, at the usual cost.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$cGlsbGFyYm94bm9ib2R5IQ$/l8sqEeDfBNMTCsOTYvMCpZrlZz4GYyZDQ3dYIUZz64";

/// An argon2id hash with a new salt, as it is stored.
pub fn hash(password: &[u8]) -> Result<String, argon2::password_hash::Error> {
    use argon2::password_hash::PasswordHasher;
    Ok(Argon2::default().hash_password(password)?.to_string())
}

/// A failure costs as much whether the user is known or not, and however the password is stored.
pub(super) fn accepts(credential: Option<&Credential>, password: &[u8]) -> bool {
    let known = credential.filter(|it| !password.is_empty() && !it.password_hash.is_empty());
    let accepted = match known.map(|it| (it.hashing.as_str(), it.password_hash.as_str())) {
        Some(("argon2id", phc)) => return accepts_argon2(phc, password),
        Some(("rabbit_password_hashing_sha256", stored)) => salted::<Sha256>(stored, password),
        Some(("rabbit_password_hashing_sha512", stored)) => salted::<Sha512>(stored, password),
        Some(("rabbit_password_hashing_md5", stored)) => salted::<md5::Md5>(stored, password),
        _ => false,
    };
    if !accepted {
        accepts_argon2(NOBODY, password);
    }
    accepted
}

fn accepts_argon2(phc: &str, password: &[u8]) -> bool {
    let Ok(stored) = PasswordHash::new(phc) else { return false };
    Argon2::default().verify_password(password, &stored).is_ok()
}

/// RabbitMQ's form: base64 of a salt, and the digest of salt and password.
fn salted<D: Digest>(stored: &str, password: &[u8]) -> bool {
    let Ok(stored) = STANDARD.decode(stored) else { return false };
    let Some((salt, digest)) = stored.split_at_checked(SALT_SIZE) else { return false };
    let expected = D::new().chain_update(salt).chain_update(password).finalize();
    expected.as_slice().ct_eq(digest).into()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn credential(hashing: &str, password_hash: &str) -> Credential {
        Credential {
            password_hash: password_hash.into(),
            hashing: hashing.into(),
            ..Credential::default()
        }
    }

    fn stored<D: Digest>(password: &str) -> String {
        let salt = [0x90, 0x8d, 0xc6, 0x0a];
        let digest = D::new().chain_update(salt).chain_update(password).finalize();
        STANDARD.encode([&salt[..], digest.as_slice()].concat())
    }

    #[test]
    fn the_dummy_hash_costs_as_much_as_a_real_one() {
        let dummy = PasswordHash::new(NOBODY).unwrap();
        let real = hash(b"x").unwrap();
        let real = PasswordHash::new(&real).unwrap();
        assert_eq!(dummy.params, real.params);
        assert_eq!(dummy.hash.unwrap().len(), real.hash.unwrap().len());
    }

    /// The example of RabbitMQ's documentation: salt 908DC60A, password test12.
    #[test]
    fn rabbitmq_documented_hash_is_accepted() {
        let imported = credential(
            "rabbit_password_hashing_sha256",
            "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR",
        );
        assert!(accepts(Some(&imported), b"test12"));
        assert!(!accepts(Some(&imported), b"test13"));
    }

    #[rstest]
    #[case("argon2id", hash(b"secret").unwrap())]
    #[case("rabbit_password_hashing_sha256", stored::<Sha256>("secret"))]
    #[case("rabbit_password_hashing_sha512", stored::<Sha512>("secret"))]
    #[case("rabbit_password_hashing_md5", stored::<md5::Md5>("secret"))]
    fn every_form_tells_right_from_wrong(#[case] hashing: &str, #[case] stored: String) {
        let credential = credential(hashing, &stored);
        assert!(accepts(Some(&credential), b"secret"));
        assert!(!accepts(Some(&credential), b"secreT"));
        assert!(!accepts(Some(&credential), b""));
    }

    #[rstest]
    #[case("rabbit_password_hashing_sha256", "")]
    #[case("rabbit_password_hashing_sha256", "not base64!")]
    #[case("rabbit_password_hashing_sha256", "AAA=")]
    #[case("argon2id", "$argon2id$nonsense")]
    #[case("plain", "secret")]
    fn a_damaged_hash_accepts_nothing(#[case] hashing: &str, #[case] stored: &str) {
        let credential = credential(hashing, stored);
        assert!(!accepts(Some(&credential), b"secret"));
        assert!(!accepts(Some(&credential), b""));
    }
}
