cd .; source scripts/postgres.sh; mkdir -p bench-out; export TMPDIR=$PWD/bench-out; chmod 755 bench-out
trap stop_postgres EXIT; start_postgres; new_database drain; export PG_URL
NP=14222; mkdir -p ./nats; rm -rf ./nats/*; /usr/sbin/nats-server -a 127.0.0.1 -p $NP -js -sd bench-out/natsdata >/dev/null 2>&1 & N=$!
export NATS=nats://127.0.0.1:$NP
timeout 230 python3 ./drain.py $1
kill $N; rm -rf bench-out/natsdata
