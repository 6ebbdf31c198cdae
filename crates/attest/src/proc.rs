//! The two lines of `/proc` that tell one process from another, as text.

/// `Pid:` of `/proc/self/fdinfo/N` of a pidfd: -1 when the process is gone, 0 when it lives in another PID namespace.
pub(crate) fn pid_of_fdinfo(text: &str) -> Option<i64> {
    let mut found = text
        .lines()
        .filter_map(|line| line.strip_prefix("Pid:"))
        .map(|rest| rest.trim().parse().ok());
    match (found.next(), found.next()) {
        (Some(pid), None) => pid,
        _ => None,
    }
}

/// The start time (field 22) of `/proc/PID/stat`. The name before it is the process's own choice and may hold anything, `)` too.
pub(crate) fn start_time(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    // Field 3 (the state) is the first one after the name.
    after.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pidfd_says_which_process_it_is_of_or_that_it_is_gone() {
        assert_eq!(
            pid_of_fdinfo("pos:\t0\nflags:\t02\nPid:\t-1\nNSpid:\t-1\n"),
            Some(-1)
        );
        assert_eq!(pid_of_fdinfo("Pid:\t4711\nNSpid:\t4711\n"), Some(4711));
        assert_eq!(pid_of_fdinfo("pos:\t0\n"), None);
        assert_eq!(pid_of_fdinfo("Pid:\t1\nPid:\t2\n"), None);
    }

    #[test]
    fn a_process_that_names_itself_like_a_stat_line_changes_nothing() {
        let line = |name: &str| {
            format!("42 ({name}) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1")
        };
        assert_eq!(start_time(&line("agent")), Some(987_654));
        assert_eq!(
            start_time(&line(") S 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 (")),
            Some(987_654)
        );
        assert_eq!(start_time("42 (cut) S 1"), None);
    }
}
