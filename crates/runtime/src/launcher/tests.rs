//! What the variables of launchers make of a process.

use super::*;

type Variables<'a> = &'a [(&'a str, &'a str)];

fn lookup<'a>(variables: Variables<'a>) -> impl Fn(&str) -> Option<String> + 'a {
    |name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.to_string())
    }
}

fn check(variables: Variables) -> Result<()> {
    refuse_many_processes(lookup(variables))
}

fn member_of(variables: Variables) -> Result<Member> {
    member(&world(lookup(variables)).unwrap(), lookup(variables))
}

fn at(host: &str, port: u16) -> Address {
    Address::At {
        host: host.into(),
        port,
    }
}

#[test]
fn complete_sets_above_1_are_refused() {
    let torchrun = |size| {
        [
            ("RANK", "0"),
            ("WORLD_SIZE", size),
            ("LOCAL_RANK", "0"),
            ("MASTER_ADDR", "a"),
            ("MASTER_PORT", "1"),
        ]
    };
    let error = check(&torchrun("4")).unwrap_err();
    assert_eq!(error.kind.exit_code(), 3);
    assert!(error.message.contains("torchrun") && error.message.contains("WORLD_SIZE=4"));
    check(&torchrun("1")).unwrap();
    check(&torchrun("4")[..4]).unwrap();
    check(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")]).unwrap();
    let error = check(&[
        ("SLURM_PROCID", "0"),
        ("SLURM_NTASKS", "8"),
        ("SLURM_STEP_ID", "0"),
    ]);
    assert!(error.unwrap_err().message.contains("srun"));
    assert!(check(&[("PMI_RANK", "0"), ("PMI_SIZE", "2")]).is_err());
    assert!(check(&[("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "2")]).is_err());
    check(&[]).unwrap();
}

#[test]
fn torchrun_leaves_its_port_alone() {
    let variables = [
        ("RANK", "5"),
        ("WORLD_SIZE", "8"),
        ("LOCAL_RANK", "1"),
        ("MASTER_ADDR", "head"),
        ("MASTER_PORT", "29500"),
    ];
    let expected = Member {
        rank: 5,
        ranks: 8,
        local_rank: 1,
        address: at("head", 29501),
    };
    assert_eq!(member_of(&variables).unwrap(), expected);
}

#[test]
fn slurm_names_the_first_host_of_the_step() {
    let variables = [
        ("SLURM_PROCID", "3"),
        ("SLURM_NTASKS", "4"),
        ("SLURM_STEP_ID", "2"),
        ("SLURM_LOCALID", "1"),
        ("SLURM_JOB_ID", "100"),
        ("SLURM_JOB_NODELIST", "gpu[07-09]"),
        ("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.1"),
    ];
    let found = member_of(&variables).unwrap();
    assert_eq!((found.rank, found.local_rank), (3, 1));
    assert_eq!(found.address, at("gpu07", 20_000 + 3102));
    let own = [("SYNCBN_MASTER_ADDR", "x"), ("SYNCBN_MASTER_PORT", "9")];
    let found = member_of(&[&variables[..], &own].concat()).unwrap();
    assert_eq!(found.address, at("x", 9));
    let mut without = variables.to_vec();
    without.remove(5);
    let Address::At { host, .. } = member_of(&without).unwrap().address else {
        panic!("no address");
    };
    assert_eq!(host, "10.0.0.1");
}

#[test]
fn hosts_of_slurms_lists() {
    for (list, first) in [
        ("a", "a"),
        ("a,b", "a"),
        ("n[1-3]", "n1"),
        ("n[07,12-13],m", "n07"),
        ("n[2]-ib,m", "n2-ib"),
        ("c3,n[1-2]", "c3"),
    ] {
        assert_eq!(first_host(list), first, "{list}");
    }
}

#[test]
fn mpi_on_one_machine_needs_no_address() {
    let variables = [
        ("OMPI_COMM_WORLD_RANK", "1"),
        ("OMPI_COMM_WORLD_SIZE", "2"),
        ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
        ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
    ];
    let (one, two) = (member_of(&variables).unwrap(), member_of(&variables).unwrap());
    assert_eq!(one, two);
    let Address::At { host, port } = one.address else {
        panic!("no address");
    };
    assert_eq!(host, "127.0.0.1");
    assert!((20_000..30_000).contains(&port));
    let error = member_of(&variables[..3]).unwrap_err();
    assert_eq!(error.kind.exit_code(), 4);
    assert!(error.notes[0].contains("SYNCBN_MASTER_ADDR"), "{error}");
    assert!(member_of(&[("PMI_RANK", "2"), ("PMI_SIZE", "2")]).is_err());
}
