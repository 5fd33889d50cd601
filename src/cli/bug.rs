//! What a bug in `chaos` looks like to the person who meets it: a panic that says so and names
//! the folder with the evidence. Rust's runtime then exits with 101.

use std::path::PathBuf;
use std::sync::Mutex;

/// The folder of the run under way. Process-wide because the panic hook is.
static RUN_FOLDER: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Says in every panic from now on that it is a bug in `chaos`, before the usual message.
pub fn install_hook() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        use std::io::Write as _;
        // `try_lock`: a panic inside `set_run_folder` must not turn into a deadlock.
        let folder = RUN_FOLDER.try_lock().ok().and_then(|folder| folder.clone());
        let folder = folder.map_or(String::new(), |dir| {
            format!("; run folder `{}`", dir.display())
        });
        let _ = writeln!(std::io::stderr(), "error: this is a bug in chaos{folder}");
        usual(info);
    }));
}

/// Names the folder of the run under way (`None`: no run is), for the message of a panic.
pub fn set_run_folder(folder: Option<PathBuf>) {
    if let Ok(mut current) = RUN_FOLDER.lock() {
        *current = folder;
    }
}
