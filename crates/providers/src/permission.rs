//! Permissions: the words of `permissions.endpoints` in a key's definition.

/// What a policy may allow: the words of `permissions.endpoints`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// Speech, transcription, translation.
    Audio,
    /// Work in bulk.
    Batches,
    /// Chat, text completion, token counting.
    Chat,
    /// Vectors.
    Embeddings,
    /// Endpoints that hand the app a provider credential of its own, with which it can go round Tacit. Never in a default.
    EphemeralKeys,
    /// Uploads and what is built on them.
    Files,
    /// Training, and deleting what was trained.
    FineTuning,
    /// Pictures and video.
    Images,
    /// Remote MCP servers named in a body: the provider then calls a third party with what the app tells it. Never in a default.
    Mcp,
    /// Reading the list of models.
    Models,
    /// Classifying content.
    Moderation,
    /// Two-way sessions.
    Realtime,
    /// The Responses API, with its conversations.
    Responses,
}

/// A word that is no permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPermission;

impl std::fmt::Display for UnknownPermission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not a permission; known are: ")?;
        for (n, permission) in Permission::ALL.iter().enumerate() {
            write!(f, "{}{}", if n == 0 { "" } else { ", " }, permission.name())?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownPermission {}

impl Permission {
    /// Every permission there is.
    pub const ALL: [Self; 13] = [
        Self::Audio,
        Self::Batches,
        Self::Chat,
        Self::Embeddings,
        Self::EphemeralKeys,
        Self::Files,
        Self::FineTuning,
        Self::Images,
        Self::Mcp,
        Self::Models,
        Self::Moderation,
        Self::Realtime,
        Self::Responses,
    ];

    /// The word used in definitions and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Batches => "batches",
            Self::Chat => "chat",
            Self::Embeddings => "embeddings",
            Self::EphemeralKeys => "ephemeral-keys",
            Self::Files => "files",
            Self::FineTuning => "fine-tuning",
            Self::Images => "images",
            Self::Mcp => "mcp",
            Self::Models => "models",
            Self::Moderation => "moderation",
            Self::Realtime => "realtime",
            Self::Responses => "responses",
        }
    }
}

impl std::str::FromStr for Permission {
    type Err = UnknownPermission;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|p| p.name() == word)
            .ok_or(UnknownPermission)
    }
}

#[cfg(test)]
mod tests {
    use super::Permission as P;
    use super::UnknownPermission;

    #[test]
    fn permissions_are_known_by_their_words() {
        for permission in P::ALL {
            assert_eq!(permission.name().parse(), Ok(permission));
        }
        assert_eq!("Chat".parse::<P>(), Err(UnknownPermission));
        assert!(UnknownPermission.to_string().contains("fine-tuning"));
    }
}
