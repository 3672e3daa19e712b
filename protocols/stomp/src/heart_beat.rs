//! The `heart-beat` header.

use crate::StompError;

/// Reads "cx,cy": the milliseconds in which the sender can send and wants to receive, 0 for never.
pub fn parse_heart_beat(value: &str) -> Result<(u32, u32), StompError> {
    let (sends, wants) = value.split_once(',').ok_or(StompError::InvalidHeartBeat)?;
    Ok((parse_millis(sends)?, parse_millis(wants)?))
}

fn parse_millis(text: &str) -> Result<u32, StompError> {
    // `parse` alone would take a plus sign.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(StompError::InvalidHeartBeat);
    }
    text.parse().map_err(|_| StompError::InvalidHeartBeat)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0,0", (0, 0))]
    #[case("1,1", (1, 1))]
    #[case("10000,05000", (10_000, 5_000))]
    #[case("4294967295,0", (u32::MAX, 0))]
    fn two_numbers_are_a_heart_beat(#[case] value: &str, #[case] expected: (u32, u32)) {
        assert_eq!(parse_heart_beat(value), Ok(expected));
    }

    #[rstest]
    #[case("")]
    #[case(",")]
    #[case("1")]
    #[case("1,")]
    #[case("a,b")]
    #[case("-1,0")]
    #[case("+1,0")]
    #[case("1, 1")]
    #[case("1,1,1")]
    #[case("1.5,0")]
    #[case("99999999999,0")]
    fn anything_else_is_not(#[case] value: &str) {
        assert_eq!(parse_heart_beat(value), Err(StompError::InvalidHeartBeat));
    }
}
