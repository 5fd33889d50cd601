//! What a run that was killed leaves behind, and how it is found and cleared.
//!
//! A run holds a lock in its folder from its first effect to the end of its teardown, and removes
//! it then. So a lock that nobody holds means a run that was killed, or that panicked; a held one
//! means a run under way, which is left alone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use tokio::time::timeout;

use super::links;
use crate::keeper::{Swept, sweep};

/// The lock's file in the run folder.
const LOCK: &str = "run.lock";

/// The folder of the services' data in the run folder.
pub const DATA: &str = "data";

/// How long a coordinator that was killed may take to let go of its lock: the kernel closes what it had
/// open one after another, and the keeper hears of its end by what comes first.
pub const LET_GO_WITHIN: Duration = Duration::from_secs(10);

/// How soon to look for the lock again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How long to wait for killed processes to be gone.
const SWEEP_DEADLINE: Duration = Duration::from_secs(10);

/// Says that the run of this folder is under way, while it lives. Let it go at the very end of
/// the teardown. A panic lets go of it too, but leaves its file.
#[derive(Debug)]
pub struct RunLock {
    path: PathBuf,
    /// Locked; closing it lets go.
    _file: File,
}

impl RunLock {
    /// Takes the lock; `None` when the run is under way in another process.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written.
    pub fn take(run_folder: &Path) -> io::Result<Option<RunLock>> {
        let path = run_folder.join(LOCK);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Ok(None),
            locked => locked
                .map(|()| Some(RunLock { path, _file: file }))
                .map_err(io::Error::from),
        }
    }
}

impl RunLock {
    /// Leaves the lock's file behind when this process ends, so that what the run left is found by
    /// the next start and by `chaos clean`.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // A coordinator that panics skips its teardown: whoever clears up after it looks for the file.
        if !std::thread::panicking() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The folders of runs that were killed, and perhaps of some under way.
///
/// # Errors
///
/// When the folder exists but cannot be read.
pub fn unfinished(report_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(report_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut folders: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    // `latest` is a link to one of the others.
    folders.retain(|folder| !folder.is_symlink() && folder.join(LOCK).exists());
    folders.sort();
    Ok(folders)
}

/// What clearing a run took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cleared {
    /// The run is under way; nothing was touched.
    UnderWay,
    /// Its processes were killed and its services' data removed. Its evidence stays.
    Cleared {
        /// What became of its processes.
        processes: Swept,
        /// What could not be removed from a shared Toxiproxy.
        proxies_left: Vec<String>,
    },
}

/// Clears what the run of this folder left: kills its processes, removes the services' data, and its
/// proxies from a shared Toxiproxy. The folder's name is the run's id. Its lock stays when something
/// could not be cleared, so that the next start tries again. A run that is still under way after
/// `patience` is left alone.
///
/// # Errors
///
/// When the folder cannot be used, or the data not removed.
pub async fn clear(run_folder: &Path, patience: Duration) -> io::Result<Cleared> {
    let folder = run_folder.canonicalize()?;
    let run_id = folder.file_name().and_then(|name| name.to_str());
    let run_id = run_id.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    // Only a run that was killed leaves its lock: any other folder is none of ours to clear.
    if !folder.join(LOCK).exists() {
        let why = format!("it holds no `{LOCK}`, so no run was killed here");
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    }
    let Ok(lock) = timeout(patience, lock_of(&folder)).await else {
        return Ok(Cleared::UnderWay);
    };
    let lock = lock?;
    let swept = sweep(run_id, SWEEP_DEADLINE);
    let proxies = remove_proxies(&folder, run_id).await;
    let removed = match swept.left.is_empty() {
        true => remove_data(&folder.join(DATA)),
        false => Ok(()),
    };
    if !swept.left.is_empty() || !proxies.is_empty() || removed.is_err() {
        // Unlocked when this process ends, but not removed.
        lock.keep();
    }
    removed?;
    Ok(Cleared::Cleared {
        processes: swept,
        proxies_left: proxies,
    })
}

/// Asks again and again: nobody is told when a lock of a file is let go of.
async fn lock_of(folder: &Path) -> io::Result<RunLock> {
    loop {
        if let Some(lock) = RunLock::take(folder)? {
            return Ok(lock);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Removes the run's proxies from the Toxiproxy that its plan names; says which are left.
async fn remove_proxies(folder: &Path, run_id: &str) -> Vec<String> {
    let plan = fs::read(folder.join("plan.json")).unwrap_or_default();
    let plan: serde_json::Value = serde_json::from_slice(&plan).unwrap_or_default();
    let Some(server) = plan["toxiproxy"].as_str() else {
        return Vec::new();
    };
    match links::remove_leftovers(server, run_id).await {
        Ok(left) => left,
        Err(error) => vec![format!("proxies on {server}: {error}")],
    }
}

/// Removes the services' data, if there is any.
///
/// # Errors
///
/// When it is there and cannot be removed.
pub fn remove_data(data: &Path) -> io::Result<()> {
    match fs::remove_dir_all(data) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn run_under_way_is_left_alone_and_a_killed_one_is_cleared() {
        let reports = tempfile::tempdir().expect("a folder");
        let (killed, live) = (reports.path().join("killed"), reports.path().join("live"));
        for folder in [&killed, &live, &reports.path().join("finished")] {
            fs::create_dir(folder).expect("a folder");
        }
        fs::write(killed.join(LOCK), "").expect("written");
        fs::create_dir_all(killed.join(DATA).join("orders")).expect("a folder");
        let lock = RunLock::take(&live).expect("writable").expect("free");

        assert_eq!(
            unfinished(reports.path()).expect("readable"),
            [killed.clone(), live.clone()]
        );
        assert_eq!(
            clear(&live, Duration::ZERO).await.expect("readable"),
            Cleared::UnderWay
        );
        let nothing = Swept {
            killed: 0,
            left: Vec::new(),
        };
        assert_eq!(
            clear(&killed, Duration::ZERO).await.expect("readable"),
            Cleared::Cleared {
                processes: nothing,
                proxies_left: Vec::new()
            }
        );
        assert!(!killed.join(DATA).exists());
        drop(lock);
        assert_eq!(
            unfinished(reports.path()).expect("readable"),
            Vec::<PathBuf>::new()
        );
    }

    #[tokio::test]
    async fn lock_that_is_let_go_of_late_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join(DATA)).expect("a folder");
        let lock = RunLock::take(folder.path()).expect("writable");
        let lock = lock.expect("free");
        let mut clearing = std::pin::pin!(clear(folder.path(), LET_GO_WITHIN));
        assert!(futures_util::poll!(&mut clearing).is_pending());
        // As the kernel does it, which leaves the file.
        let RunLock { path, _file } = &lock;
        rustix::fs::flock(_file, FlockOperation::Unlock).expect("unlocked");
        assert!(path.exists());
        assert!(matches!(clearing.await, Ok(Cleared::Cleared { .. })));
        assert!(!folder.path().join(DATA).exists());
    }

    #[tokio::test]
    async fn run_that_ended_in_a_panic_is_cleared_as_a_killed_one() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join(DATA)).expect("a folder");
        let lock = RunLock::take(folder.path()).expect("writable");
        let run = std::thread::spawn(move || {
            let _lock = lock.expect("free");
            panic!("a bug in the run");
        });
        assert!(run.join().is_err());
        let cleared = clear(folder.path(), Duration::ZERO).await;
        assert!(
            matches!(cleared, Ok(Cleared::Cleared { .. })),
            "{cleared:?}"
        );
        assert!(!folder.path().join(DATA).exists());
        assert!(!folder.path().join(LOCK).exists());
    }

    #[tokio::test]
    async fn what_could_not_be_removed_is_tried_again_by_the_next_start() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(LOCK), "").expect("written");
        // No folder, so it cannot be removed as one.
        fs::write(folder.path().join(DATA), "").expect("written");
        assert!(clear(folder.path(), Duration::ZERO).await.is_err());
        assert!(folder.path().join(LOCK).exists());
    }

    #[tokio::test]
    async fn folder_of_no_killed_run_is_not_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join(DATA)).expect("a folder");
        assert!(clear(folder.path(), Duration::ZERO).await.is_err());
        assert!(folder.path().join(DATA).exists());
        assert!(!folder.path().join(LOCK).exists());
    }

    #[test]
    fn no_reports_yet_is_nothing_to_clear() {
        let nowhere = Path::new("/nonexistent/reports");
        assert_eq!(
            unfinished(nowhere).expect("no error"),
            Vec::<PathBuf>::new()
        );
    }
}
