from imas_jax.stages import inputs


def test_damaged_lines_of_a_log_are_left_out_and_told(tmp_path, caplog):
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(b'{"step": 1}\n{"step"\n\xff\n{"step": 2}\n')
    with caplog.at_level("WARNING"):
        assert inputs.training_log(tmp_path) == [{"step": 1}, {"step": 2}]
    assert caplog.messages == [f"{log}: 2 damaged line(s)"]
    assert inputs.training_log(tmp_path / "none") == []
