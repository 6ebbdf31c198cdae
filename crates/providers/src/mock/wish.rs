//! What a request wishes for in its header `x-tacit-mock`.

/// What to say to a wish that is not known.
pub(super) const HELP: &str = "mock: x-tacit-mock may be status=400 to status=599, error=invalid_api_key, error=insufficient_quota, \
     error=mid_stream, cut or slow";

/// One wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// A good answer.
    None,
    Status(u16),
    InvalidKey,
    NoQuota,
    MidStream,
    Cut,
    Slow,
}

/// The wish is none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnknownWish;

impl Wish {
    pub(super) fn read(wish: Option<&str>) -> Result<Self, UnknownWish> {
        let Some(wish) = wish.map(str::trim) else {
            return Ok(Self::None);
        };
        if let Some(status) = wish.strip_prefix("status=") {
            return status
                .parse()
                .ok()
                .filter(|status| (400..600).contains(status))
                .map(Self::Status)
                .ok_or(UnknownWish);
        }
        Ok(match wish {
            "error=invalid_api_key" => Self::InvalidKey,
            "error=insufficient_quota" => Self::NoQuota,
            "error=mid_stream" => Self::MidStream,
            "cut" => Self::Cut,
            "slow" => Self::Slow,
            _ => return Err(UnknownWish),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_known_by_their_words_and_others_are_not() {
        assert_eq!(Wish::read(None), Ok(Wish::None));
        assert_eq!(Wish::read(Some(" status=429 ")), Ok(Wish::Status(429)));
        assert_eq!(Wish::read(Some("cut")), Ok(Wish::Cut));
        for wish in ["", "status=200", "status=600", "status=", "Cut", "error=x"] {
            assert_eq!(Wish::read(Some(wish)), Err(UnknownWish), "{wish}");
        }
    }
}
