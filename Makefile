# The few things that are made by a program and committed. Everything else is in .ci/run.
PROTOS = caffe tensorflow

.PHONY: proto wheel-files constraints

# protoc 3.21 writes code that runs on protobuf 3.20 to 7; a later one would ask for a later runtime.
proto:
	@protoc --version | grep -q ' 3\.21\.' || { echo "protoc: expected 3.21.x (Debian: protobuf-compiler)"; exit 1; }
	cd proto && for name in $(PROTOS); do protoc -I. --python_out=. --pyi_out=. $$name.proto; done

# The files of the wheel, which .ci/run compares with what is built.
wheel-files:
	rm -rf build dist && python -m build --wheel -q
	python -m zipfile -l dist/*.whl | awk 'NR > 1 {print $$1}' | grep -v dist-info | sort > .ci/wheel-files.txt
	rm -rf build dist
