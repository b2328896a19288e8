# The server in a container: a build stage with compilers, and a final stage with nothing but what
# runs. `make container` builds it and puts it through its paces.
#
#   docker build -t descent .
#   docker run -d --name descent -p 8080:8080 -v descent:/var/lib/descent --read-only --cap-drop ALL descent
#   docker exec descent descent token create --name me
#
# Clients say `Authorization: Bearer` and what the last line prints; until there is a token nobody can
# do anything. For integration tests, where nobody else reaches the port, a server without tokens
# and without a volume, which keeps nothing:
#
#   docker run --rm -p 127.0.0.1:8080:8080 -e DESCENT_INSECURE=true descent
#
# TLS: mount the files, readable for uid 10001, and say -e DESCENT_TLS_CERT=FILE -e DESCENT_TLS_KEY=FILE.

FROM debian:12-slim AS build
WORKDIR /descent
COPY Makefile ./
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends make >/dev/null \
    && make deps \
    && rm -rf /var/lib/apt/lists/*
COPY api api
COPY service service
COPY storage storage
RUN make -j"$(nproc)" build/descent && install -D --strip build/descent /out/descent

FROM debian:12-slim
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends \
        libgnutls30 libjansson4 libmicrohttpd12 libopenblas0-serial libsqlite3-0 libzstd1 zlib1g >/dev/null \
    && rm -rf /var/lib/apt/lists/*
# A fixed number, so that folders mounted from outside can be given to it. A new volume takes the
# owner of this folder.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/descent \
        --shell /usr/sbin/nologin descent \
    && install -d -o descent -g descent -m 0750 /var/lib/descent
COPY --from=build /out/descent /usr/local/bin/descent

USER 10001:10001
# The one folder that can be written: under --read-only SQLite's spilled sorts come here too.
WORKDIR /var/lib/descent
VOLUME /var/lib/descent
EXPOSE 8080
# By environment, so that `serve` and `health` agree whatever the address is. Docker kills ten
# seconds after SIGTERM: draining ends before.
ENV DESCENT_LISTEN=0.0.0.0:8080 DESCENT_DATA=/var/lib/descent DESCENT_DRAIN_TIMEOUT_S=8
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=6s --start-period=30s --retries=3 CMD ["descent", "health"]
ENTRYPOINT ["descent"]
CMD ["serve"]
