"""The files of a model on a web server: an archive, or a folder whose page lists them. Called by `remote_folder`."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from heddle.checkpoint.sources.listing import check_is_model
from heddle.remote.addresses import Address
from heddle.remote.downloads import Bytes, RemoteFile, try_again
from heddle.remote.errors import StoreError
from heddle.remote.web import WebClient, describe

LISTED_FILES_MAX = 2000
FOLDERS_MAX = 100
ASKED_AT_ONCE = 8

FIRST_BYTE = "bytes=0-0"


class WebModel:
    def __init__(self, address: Address) -> None:
        self.address, self.client = address, WebClient(address)
        self.url = self.client.url

    def list_files(self) -> list[RemoteFile]:
        return try_again(self.list_once)

    def list_once(self) -> list[RemoteFile]:
        with self.client.ask(self.url, FIRST_BYTE) as answer:
            is_page = answer.headers.get_content_type() == "text/html"
            if self.address.is_archive or not is_page:
                name = PurePosixPath(unquote(urlsplit(self.url).path)).name or "archive"
                return [describe(name, answer)]
            folder = urlunsplit(urlsplit(answer.geturl())._replace(query="", fragment=""))
        self.url = folder if folder.endswith("/") else f"{folder}/"
        links = self.find_links(self.url)
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            files = list(pool.map(self.describe_link, links))
        check_is_model(files, self.address.shown)
        return files

    def find_links(self, top: str) -> list[str]:
        """Returns the addresses of all files that the page and the pages of its folders list."""
        files: list[str] = []
        folders = [top]
        for page in folders:  # the loop appends to it
            with self.client.ask(page) as answer:
                reader = LinkReader()
                reader.feed(answer.read().decode("utf-8", errors="replace"))
            links = {urljoin(page, href) for href in reader.hrefs if not href.startswith(("?", "#"))}
            below = {link for link in links if link.startswith(page) and not urlsplit(link).query}
            files += sorted(link for link in below if not link.endswith("/"))
            folders += sorted(link for link in below.difference(folders) if link.endswith("/"))
            if len(files) > LISTED_FILES_MAX or len(folders) > FOLDERS_MAX:
                raise StoreError(
                    f"{self.address.shown} lists more than {LISTED_FILES_MAX} files or {FOLDERS_MAX} folders", "missing"
                )
        if not files:
            line = f"{self.address.shown} is neither an archive nor a page that lists a model's files"
            raise StoreError(line, "missing")
        return sorted(files)

    def describe_link(self, link: str) -> RemoteFile:
        with self.client.ask(link, FIRST_BYTE) as answer:
            return describe(unquote(link.removeprefix(self.url)), answer)

    def read(self, file: RemoteFile, start: int, end: int) -> Bytes:
        return self.client.read(self.url_of(file), file, start, end)

    def stream(self, file: RemoteFile) -> Iterator[Bytes]:
        return self.client.stream(self.url_of(file))

    def check(self, file: RemoteFile, path: Path) -> None:
        """Does nothing: `read` compares the version that each answer states."""

    def url_of(self, file: RemoteFile) -> str:
        return f"{self.url}{quote(file.path)}" if self.url.endswith("/") and not self.address.is_archive else self.url


class LinkReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hrefs += [value for name, value in attrs if tag == "a" and name == "href" and value]
