//! Words that `ip link` knows for tunnels and geneved does not, and what is there instead.

/// Why a word is not one of geneved's, where `ip` would take it.
pub fn why_not(word: &str) -> Option<&'static str> {
    Some(match word {
        "external" => {
            "geneved chooses VNI and hosts itself; name them with \"id\" and \"geneved endpoint\" or \"geneved route\""
        }
        "learning" => {
            "hosts are named with \"remote\", \"geneved endpoint\" or \"geneved route\"; MAC addresses of their endpoints are found by asking"
        }
        "group" => {
            "geneved needs no multicast in the underlay; name hosts with \"remote\", \"geneved endpoint\" or \"geneved route\""
        }
        "proxy" => "a link answers ARP and neighbour solicitations for its own addresses always",
        "gbp" | "gpe" => "geneved speaks VXLAN as RFC 7348 has it, without extensions",
        "rsc" | "l2miss" | "l3miss" => {
            "geneved knows where endpoints are, and never asks the kernel"
        }
        _ => return None,
    })
}
