//! The commands of geneved-interop(7) do what the page says: those that it marks are run as they stand there.

use geneved_tests::world::{Duo, TestBackend, assert_ping, assert_tcp};

/// The commands of the blocks in the page's section `title` that are marked for `whom`.
fn commands(title: &str, whom: &str) -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../man/geneved-interop.7");
    let page = std::fs::read_to_string(path).unwrap();
    let section = page
        .split("\n.Sh ")
        .find(|section| section.starts_with(title))
        .unwrap_or_else(|| panic!("no section {title}"));
    let mark = format!(".\\\" run: {whom}\n.Bd -literal -offset indent\n");
    let blocks = section.split(mark.as_str()).skip(1);
    let text: String = blocks.filter_map(|b| b.split("\n.Ed").next()).collect();
    // A line that goes on ends in `\e`, which is how the page writes a backslash.
    let text = text.replace("\\e\n", " ");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_vxlan_device_of_the_kernel_is_paired_as_the_page_says() {
    let duo = Duo::new();
    let daemon = duo.world.daemon(&duo.a, TestBackend::Uring, "", "");
    let title = "A VXLAN DEVICE OF THE KERNEL";
    let (here, there) = (commands(title, "geneved"), commands(title, "peer"));
    assert!(!here.is_empty() && !there.is_empty());
    for command in here {
        daemon.cli(command.strip_prefix("geneved ").expect("geneved's"));
    }
    for command in there {
        duo.b
            .ip(command.strip_prefix("ip ").expect("ip's"))
            .unwrap();
    }
    assert_ping(&duo.ends("10.0.0.2"));
    assert_tcp(&duo.ends("10.0.0.2"), 1, 1_000_000);
}
