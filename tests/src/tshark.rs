//! Dissection of packets by tshark.

use std::path::PathBuf;
use std::process::Command;

/// Returns the values of `fields` in each of `frames`; a field that occurs more than once is joined by commas.
///
/// # Panics
/// If tshark is missing or fails.
#[must_use]
pub fn tshark(name: &str, frames: &[Vec<u8>], fields: &[&str]) -> Vec<Vec<String>> {
    let capture = PcapFile::write(name, frames);
    let mut command = Command::new("tshark");
    command
        .args(["-n", "-T", "fields", "-E", "separator=|", "-r"])
        .arg(&capture.0);
    for preference in ["ip", "udp", "tcp"] {
        command.args(["-o", &format!("{preference}.check_checksum:TRUE")]);
    }
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command
        .output()
        .expect("tshark is required by this test (Debian: apt-get install tshark)");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tshark: {errors}");
    let text = String::from_utf8(output.stdout).expect("tshark prints UTF-8");
    text.lines()
        .map(|line| line.split('|').map(str::to_owned).collect())
        .collect()
}

/// Capture file of raw IP packets, removed when dropped.
struct PcapFile(PathBuf);

impl PcapFile {
    fn write(name: &str, frames: &[Vec<u8>]) -> PcapFile {
        const LINKTYPE_RAW: u32 = 101;
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, LINKTYPE_RAW] {
            file.extend(word.to_le_bytes());
        }
        for frame in frames {
            let len = frame.len() as u32;
            for word in [0, 0, len, len] {
                file.extend(word.to_le_bytes());
            }
            file.extend(frame);
        }
        let path = std::env::temp_dir().join(format!("geneved-{name}-{}.pcap", std::process::id()));
        std::fs::write(&path, file).expect("the capture file is written");
        PcapFile(path)
    }
}

impl Drop for PcapFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
