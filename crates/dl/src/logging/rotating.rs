//! A log file that is put aside when it is too large or too old. Any number of processes may write to it:
//! `tracing-appender` looks at time alone, and the crates that look at both count what their own process
//! wrote, so that two processes would put the same file aside twice.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// When a file is put aside, and how many of those are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Largest size, bytes; 0 = any.
    pub(super) size_bytes: u64,
    /// Largest age; zero = any.
    pub(super) age: Duration,
    /// Files that were put aside and are kept.
    pub(super) files: u32,
}

/// The file at hand.
#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    limits: Limits,
    file: File,
    begun: SystemTime,
}

impl RotatingFile {
    /// Opens it to go on, with its folder.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn open(path: &Path, limits: Limits) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder)?;
        }
        let (file, begun) = open(path)?;
        Ok(RotatingFile { path: path.to_path_buf(), limits, file, begun })
    }

    /// Whether the file is to be put aside before so many bytes more.
    fn is_full(&self, more: u64) -> io::Result<bool> {
        let size = self.file.metadata()?.len();
        if size == 0 {
            return Ok(false);
        }
        let Limits { size_bytes, age, .. } = self.limits;
        let old = SystemTime::now().duration_since(self.begun).unwrap_or_default();
        Ok((size_bytes > 0 && size.saturating_add(more) > size_bytes)
            || (!age.is_zero() && old >= age))
    }

    /// Puts the file aside, unless another process has just done so.
    fn rotate(&mut self, more: u64) -> io::Result<()> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(named(&self.path, "lock"))?;
        lock.lock()?;
        (self.file, self.begun) = open(&self.path)?;
        if self.is_full(more)? {
            let kept = self.limits.files.max(1);
            for number in (1..kept).rev() {
                let from = named(&self.path, &number.to_string());
                if from.exists() {
                    fs::rename(from, named(&self.path, &(number + 1).to_string()))?;
                }
            }
            fs::rename(&self.path, named(&self.path, "1"))?;
            (self.file, self.begun) = open(&self.path)?;
        }
        lock.unlock()
    }
}

impl Write for RotatingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let more = u64::try_from(line.len()).unwrap_or(u64::MAX);
        // A line is never lost because the file could not be put aside.
        if self.is_full(more).unwrap_or(false) {
            let _ = self.rotate(more);
        }
        self.file.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Opens the file to append, with the time of its first line.
fn open(path: &Path) -> io::Result<(File, SystemTime)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let metadata = file.metadata()?;
    let begun = if metadata.len() == 0 {
        SystemTime::now()
    } else {
        first_time(path).or_else(|| metadata.created().ok()).unwrap_or_else(SystemTime::now)
    };
    Ok((file, begun))
}

/// The time that the first line of a log states: the only one that a copy of the file keeps.
fn first_time(path: &Path) -> Option<SystemTime> {
    use std::io::{BufRead, BufReader, Read};

    let mut line = String::new();
    BufReader::new(File::open(path).ok()?.take(4_096)).read_line(&mut line).ok()?;
    line.split(|c: char| c.is_whitespace() || c == '"')
        .find_map(|word| chrono::DateTime::parse_from_rfc3339(word).ok())
        .map(SystemTime::from)
}

/// `dl.log.1`
fn named(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Limits = Limits { size_bytes: 0, age: Duration::ZERO, files: 3 };

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn size_bounds_files_and_their_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/dl.log");
        let limits = Limits { size_bytes: 20, ..ANY };
        let mut file = RotatingFile::open(&path, limits).unwrap();
        for number in 0..10 {
            file.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        let logs = folder.path().join("logs");
        assert_eq!(names(&logs), ["dl.log", "dl.log.1", "dl.log.2", "dl.log.3", "dl.log.lock"]);
        assert_eq!(fs::read_to_string(logs.join("dl.log")).unwrap(), "line 8\nline 9\n");
        assert_eq!(fs::read_to_string(logs.join("dl.log.3")).unwrap(), "line 2\nline 3\n");
        // A line that is longer than a file may be is written all the same.
        file.write_all(&[b'x'; 100]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 100);
    }

    #[test]
    fn age_counts_from_the_first_line_even_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits { age: Duration::from_secs(3_600), ..ANY };
        for (name, first) in [
            ("text.log", "0123 2020-01-01T00:00:00.000000Z  INFO begins\n"),
            ("json.log", "{\"timestamp\":\"2020-01-01T00:00:00.000000Z\",\"level\":\"INFO\"}\n"),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, first).unwrap();
            RotatingFile::open(&path, limits).unwrap().write_all(b"new\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
            assert_eq!(fs::read_to_string(named(&path, "1")).unwrap(), first);
        }
        let path = folder.path().join("young.log");
        RotatingFile::open(&path, limits).unwrap().write_all(b"one\n").unwrap();
        RotatingFile::open(&path, limits).unwrap().write_all(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn writers_do_not_put_a_file_aside_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dl.log");
        let limits = Limits { size_bytes: 1_000, files: 100, ..ANY };
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    let mut file = RotatingFile::open(path, limits).unwrap();
                    for line in 0..250 {
                        file.write_all(format!("{writer} {line:05}\n").as_bytes()).unwrap();
                    }
                });
            }
        });
        let mut lines = 0;
        for name in names(folder.path()).iter().filter(|name| !name.ends_with("lock")) {
            let text = fs::read_to_string(folder.path().join(name)).unwrap();
            assert!(!text.is_empty());
            lines += text.lines().count();
        }
        assert_eq!(lines, 1_000, "no line is lost");
        // 8,000 bytes make 8 files; a few more, as one may be put aside while others still write to it.
        assert!(names(folder.path()).len() < 30, "{:?}", names(folder.path()));
    }
}
